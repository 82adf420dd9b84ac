"""The parent flow: a whole retraining, its trainings mapped over age groups."""

from typing import Any

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import BaseModel, ConfigDict

from flows.dispatch import dispatch
from flows.preparation import prepare
from flows.training import train_age, train_fracture
from pedfrac import steps, tracking
from pedfrac.config import RetrainConfig
from pedfrac.errors import PedfracError
from pedfrac.steps import Evaluated, Prepared, Trained
from pedfrac.storage import code_version
from tasks.bundle import assemble_bundle
from tasks.evaluation import evaluate_bundle
from tasks.explanation import explain_bundle
from tasks.report import publish_results, write_report
from tasks.robustness import check_robustness


class Retrained(BaseModel):
    """What a finished retraining hands back: keys of artifacts and where people look."""

    model_config = ConfigDict(frozen=True)
    prepared: Prepared
    trained: Trained
    evaluated: Evaluated
    report: str
    report_key: str
    mlflow_run: str
    flow_run: str


@flow(name="retrain")
def retrain(
    config: RetrainConfig,
    skip_unchanged: bool = False,
) -> Retrained:
    """Prepare the data, train all models, evaluate and explain them, and write the report.

    Every training is waited for; if some fail the others are kept, the error names them, and
    another run does only what is missing.

    Args:
        config: What is retrained, on which data, and how
        skip_unchanged: Do nothing where data, configuration and code are those of a finished run
    """
    if skip_unchanged and (found := steps.finished_retraining(config)):
        left, day = found
        message = f"Data, configuration and code are those of run {left['flow_run']} of {day}"
        # Prefect unwraps a state that a flow returns
        state: Any = Completed(name="Nothing to do", message=message, data=Retrained(**left))
        return state
    parameters = config.model_dump(mode="json", exclude={"runtime"})
    with tracking.start_run(config.tracking, config.tracking_folder, "retrain", parameters) as run:
        done = _retrain(config, run)
    steps.record_retraining(config, done.model_dump(mode="json"))
    return done


def _retrain(config: RetrainConfig, run: tracking.Run) -> Retrained:
    prepared = prepare(config)
    trained = train_all(config, prepared, run.run_id)
    evaluated = evaluate_and_explain(config, prepared, trained)
    provenance = {
        "data fingerprint": steps.store_of(config).peek(prepared.records).digest,
        "code version": code_version(),
    }
    report = write_report(config, prepared, trained, evaluated, provenance)
    run.log_tags(provenance | evaluated.model_dump() | {"split": prepared.split})
    run.log_figures(steps.headline_figures(config, evaluated))
    return Retrained(
        prepared=prepared,
        trained=trained,
        evaluated=evaluated,
        report=publish_results(config, evaluated, report, run),
        report_key=report,
        mlflow_run=run.run_id,
        flow_run=flow_run.name or "",
    )


def train_all(config: RetrainConfig, prepared: Prepared, parent_run: str | None) -> Trained:
    """Train generalist, age classifier and specialists; raise PedfracError naming what failed."""
    given: dict[str, Any] = {"config": config, "prepared": prepared, "parent_run": parent_run}
    # the specialists start from the generalist, so without it they need not be tried
    generalist = dispatch(
        "generalist", train_fracture, steps.fracture_training(config, prepared), given
    )
    names = ["age", *config.cohort.ages.names]
    children = [train_age] + [train_fracture] * len(config.cohort.ages)
    trainings = [steps.age_training(config, prepared)]
    parameters = [given]
    for group in range(len(config.cohort.ages)):
        trainings.append(steps.fracture_training(config, prepared, group, generalist))
        parameters.append(given | {"generalist": generalist, "group": group})
    # a runner of its own, since how many children run at a time is configuration
    runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=_at_a_time(config))
    with runner:
        futures = runner.map(
            dispatch,
            {"name": names, "child": children, "training": trainings, "given": parameters},
        )
        futures.wait()
    failed = [
        str(future.state.result(raise_on_failure=False))
        for future in futures
        if not future.state.is_completed()
    ]
    if failed:
        raise PedfracError(
            f"{len(failed)} of {len(names)} trainings failed ({'; '.join(failed)}). "
            "The others are kept; another run does only what is missing"
        )
    age, *specialists = futures.result()
    return Trained(age=age, generalist=generalist, specialists=tuple(specialists))


def _at_a_time(config: RetrainConfig) -> int:
    """Return how many children are begun at a time; on a pool, its workers see to that."""
    if config.runtime.dispatch == "deployments":
        return len(config.cohort.ages) + 1
    return config.runtime.parallel


def evaluate_and_explain(config: RetrainConfig, prepared: Prepared, trained: Trained) -> Evaluated:
    """Assemble the bundle and find out what it can do, inside a flow."""
    bundle = assemble_bundle(config, prepared, trained)
    evaluation = evaluate_bundle(config, prepared, bundle)
    explanation = explain_bundle(config, prepared, bundle, evaluation)
    robustness = check_robustness(config, prepared, bundle, evaluation)
    return Evaluated(
        bundle=bundle, evaluation=evaluation, explanation=explanation, robustness=robustness
    )
