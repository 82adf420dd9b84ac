"""Comparing a window of scored images with a bundle's own, as a task."""

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from pedfrac import mlflow_runs, pipeline
from pedfrac.config.monitoring import MonitorConfig
from pedfrac.pipeline.monitoring import Monitored


@task(name="compare window", cache_policy=NO_CACHE)
def monitor_window(config: MonitorConfig) -> Monitored:
    """Return what has changed; show it, and log its metrics to MLflow."""
    settings = config.model_dump(mode="json")
    with mlflow_runs.start_run(config.tracking, config.tracking_folder, "monitor", settings) as run:
        found = pipeline.monitor_window(config)
        run.log_tags(
            {"bundle": found.bundle, "drift": found.key, "verdict": found.verdict}
            | {"drifted": ", ".join(found.drifted)}
        )
        run.log_metrics(pipeline.drift_metrics(config, found))
    lines = [f"**{found.verdict.capitalize()}.** {found.said}", "", f"- Page: `{found.page}`"]
    lines += [f"- Metrics: `{found.key}`", f"- MLflow: {run.link}"]
    create_markdown_artifact("\n".join(lines), key="drift", description="Images at work")
    return found
