"""Writing the report and putting all results where people look, as tasks."""

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from pedfrac import steps, tracking
from pedfrac.config import RetrainConfig
from pedfrac.steps import Evaluated, Prepared, Trained


@task(name="write report", cache_policy=NO_CACHE)
def write_report(
    config: RetrainConfig,
    prepared: Prepared,
    trained: Trained,
    evaluated: Evaluated,
    provenance: dict[str, str],
) -> str:
    """Return the key of the report."""
    return steps.write_report(config, prepared, trained, evaluated, provenance)


@task(name="publish results", cache_policy=NO_CACHE)
def publish_results(
    config: RetrainConfig, evaluated: Evaluated, report: str, run: tracking.Run
) -> str:
    """Put the results where people look for them; return where the report lies."""
    shown = steps.publish_results(config, evaluated, report)
    store = steps.store_of(config)
    for name, key in (evaluated.model_dump() | {"report": report}).items():
        run.log_files(store.get(key).path, name)
    links = [f"- Report: `{shown}`", f"- MLflow: {run.link}"]
    links += [
        f"- {name.capitalize()}: `{store.place(key)}`"
        for name, key in evaluated.model_dump().items()
    ]
    create_markdown_artifact("\n".join(links), key="results", description="Where the results lie")
    return shown
