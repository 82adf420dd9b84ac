"""Splitting the patients, as a task."""

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from pedfrac import pipeline
from pedfrac.config.retrain import RetrainConfig


@task(name="split patients", cache_policy=NO_CACHE)
def split_patients(config: RetrainConfig, cohort: str) -> str:
    """Return the key of the split; show its parts by age group."""
    key = pipeline.split_patients(config, cohort)
    report = pipeline.store_of(config).get(key).read_json("split.json")
    rows = [
        {
            "age group": group["name"],
            **{
                f"{part} {count}": group[part][count]
                for part in ("train", "validation", "test")
                for count in ("images", "fractured", "patients")
            },
        }
        for group in report["groups"]
    ]
    create_table_artifact(rows, key="split", description="Images of each part by age group")
    return key
