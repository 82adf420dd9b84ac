"""Writing the report and putting all results where people look, as tasks."""

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from pedfrac import mlflow_runs, pipeline
from pedfrac.config.retrain import RetrainConfig
from pedfrac.pipeline.keys import Evaluated, Prepared, Trained


@task(name="write report", cache_policy=NO_CACHE)
def write_report(
    config: RetrainConfig,
    prepared: Prepared,
    trained: Trained,
    evaluated: Evaluated,
    provenance: dict[str, str],
) -> str:
    """Return the key of the report."""
    return pipeline.write_report(config, prepared, trained, evaluated, provenance)


@task(name="publish results", cache_policy=NO_CACHE)
def publish_results(
    config: RetrainConfig,
    evaluated: Evaluated,
    report: str,
    run: mlflow_runs.Run,
    version: int | None,
) -> str:
    """Put the results where people look for them; return where the report lies."""
    shown = pipeline.publish_results(config, evaluated, report)
    store = pipeline.store_of(config)
    links = [f"- Report: `{shown}`", f"- MLflow: {run.link}"]
    kept = evaluated.model_dump() | {"report": report}
    if version is not None:
        del kept["bundle"]  # MLflow has it as the files of the version
        links.append(f"- Registered: version {version} of {config.tracking.model}")
    for name, key in kept.items():
        run.log_files(store.get(key).path, name)
    links += [
        f"- {name.capitalize()}: `{store.place(key)}`"
        for name, key in evaluated.model_dump().items()
    ]
    summary = store.get(report).file("model_card.md").read_text()
    create_markdown_artifact(
        "\n".join([*links, "", summary]),
        key="results",
        description="Where the results lie, and the model card",
    )
    if page := run.link_to("report/report.html"):
        create_link_artifact(page, link_text="Report", key="report", description="In MLflow")
    return shown
