"""Comparing a window of scored images with a bundle's own, as a task."""

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from pedfrac import pipeline
from pedfrac.config.monitoring import MonitorConfig
from pedfrac.pipeline.monitoring import Monitored


@task(name="compare window", cache_policy=NO_CACHE)
def monitor_window(config: MonitorConfig) -> Monitored:
    """Return what has changed; show it, and log its metrics to MLflow."""
    found, link = pipeline.track_window(config)
    lines = [f"**{found.verdict.capitalize()}.** {found.said}", "", f"- Page: `{found.page}`"]
    lines += [f"- Metrics: `{found.key}`", f"- MLflow: {link}"]
    create_markdown_artifact("\n".join(lines), key="drift", description="Images at work")
    return found
