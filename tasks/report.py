"""Writing the report, as a task."""

from pathlib import Path

from prefect import task
from prefect.artifacts import create_link_artifact
from prefect.cache_policies import NO_CACHE

from pedfrac import steps
from pedfrac.config import RetrainConfig
from pedfrac.steps import Evaluated, Prepared, Trained


@task(name="write report", cache_policy=NO_CACHE)
def write_report(
    config: RetrainConfig,
    prepared: Prepared,
    trained: Trained,
    evaluated: Evaluated,
    provenance: dict[str, str],
) -> Path:
    """Put report, pictures and bundle where a person looks for them; return the report's path."""
    key = steps.write_report(config, prepared, trained, evaluated, provenance)
    report = steps.publish_results(config, evaluated, key)
    create_link_artifact(report.resolve().as_uri(), key="report", link_text=str(report))
    return report
