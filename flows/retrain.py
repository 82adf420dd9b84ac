"""The parent flow: a whole retraining, its trainings mapped over age groups."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

from prefect import Flow, flow
from prefect.futures import PrefectConcurrentFuture, wait
from prefect.runtime import deployment, flow_run
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import BaseModel, ConfigDict

from flows.assessment import evaluate_and_explain
from flows.folds import score_fold
from flows.infrastructure.deployed import Work
from flows.infrastructure.dispatch import dispatch
from flows.infrastructure.forms import Settings
from flows.infrastructure.usage import show_usage
from flows.preparation import prepare
from flows.promotion import begin_promotion
from flows.training import train_age, train_fracture
from pedfrac import mlflow_runs, pipeline
from pedfrac.config.changes import Changes
from pedfrac.config.retrain import RetrainConfig
from pedfrac.errors import PedfracError
from pedfrac.pipeline.keys import Evaluated, Prepared, Trained
from pedfrac.storage.code_version import code_version
from tasks.bundle import assemble_bundle
from tasks.folds import cut_folds, pool_folds
from tasks.packing import pack_images
from tasks.preflight import check_first
from tasks.registry import register_bundle
from tasks.report import publish_results, write_report


class Retrained(BaseModel):
    """What a finished retraining hands back: keys of artifacts and where people look.

    ``version`` is that of the registered model, None where it was not to be registered.
    """

    model_config = ConfigDict(frozen=True)
    prepared: Prepared
    trained: Trained
    evaluated: Evaluated
    report: str
    report_key: str
    mlflow_run: str
    flow_run: str
    version: int | None = None


def _run_name() -> str:
    """Name a run by what is trained, on which data, and when."""
    given = flow_run.parameters
    config = RetrainConfig.model_validate(given["config"])
    config = Changes.model_validate(given.get("change") or {}).applied(config)
    model, data = config.fracture.model, config.data.root.rstrip("/").rpartition("/")[2]
    return f"{model.backbone} {model.size} px on {data}, {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"


@flow(name="retrain", flow_run_name=_run_name)
def retrain(
    config: Settings,
    change: Changes = Changes(),  # noqa: B008 (frozen)
    skip_unchanged: bool = False,
) -> Retrained:
    """Prepare the data, train all models, evaluate, explain and register them, with a report.

    With ``split.folds`` and no fold chosen, as many sets of networks are trained beside those of
    the bundle, each without one fold of the patients, and all held-out images give pooled metrics.

    Every training is waited for; if some fail the others are kept, the error names them, and
    another run does only what is missing. Before anything is computed, all that is known to be
    wrong is looked for, and ends the run.

    Args:
        config: What is retrained, on which data, and how
        change: What differs from that
        skip_unchanged: Do nothing if data, configuration and code equal those of a finished run
    """
    config = change.applied(config)
    if skip_unchanged and (found := pipeline.finished_retraining(config)):
        left, day = found
        message = f"Data, configuration and code are those of run {left['flow_run']} of {day}"
        # Prefect unwraps a state that a flow returns
        state: Any = Completed(name="Nothing to do", message=message, data=Retrained(**left))
        return state
    check_first(config)
    parameters = config.model_dump(mode="json", exclude={"runtime"})
    with mlflow_runs.start_run(
        config.tracking, config.tracking_folder, "retrain", parameters
    ) as run:
        done = _retrain(config, run)
    pipeline.record_retraining(config, done.model_dump(mode="json"))
    on_server = deployment.id is not None or config.runtime.dispatch == "deployments"
    if config.promotion.after_retraining and on_server and done.version is not None:
        begin_promotion(config, done.version)
    return done


def _retrain(config: RetrainConfig, run: mlflow_runs.Run) -> Retrained:
    prepared = prepare(config, age_pack=False)
    trained, evaluated = train_and_evaluate(config, prepared, run.run_id)
    provenance = {
        "data fingerprint": pipeline.store_of(config).peek(prepared.records).digest,
        "code version": code_version(),
    }
    report = write_report(config, prepared, trained, evaluated, provenance)
    run.log_tags(provenance | evaluated.model_dump() | {"split": prepared.split})
    run.log_metrics(pipeline.headline_metrics(config, evaluated) | show_usage())
    version = None
    if config.tracking.registry:
        tags = provenance | pipeline.version_tags(config, prepared, evaluated, report)
        version = register_bundle(config, evaluated.bundle, run, tags)
    return Retrained(
        prepared=prepared,
        trained=trained,
        evaluated=evaluated,
        report=publish_results(config, evaluated, report, run, version),
        report_key=report,
        mlflow_run=run.run_id,
        flow_run=flow_run.name or "",
        version=version,
    )


def train_and_evaluate(
    config: RetrainConfig, prepared: Prepared, parent_run: str | None
) -> tuple[Trained, Evaluated]:
    """Train the bundle's networks and those of each fold held out in turn; evaluate, in a flow."""
    folds = cut_folds(config, prepared)
    trained, *of_folds = train_all(config, [prepared, *folds], parent_run)
    pooled = score_folds(config, folds, of_folds) if folds else None
    return trained, evaluate_and_explain(config, prepared, trained, pooled)


class _Job(NamedTuple):
    """Work, the child flow that does it, and the child's parameters."""

    child: Flow[..., str]
    work: Work
    given: dict[str, Any]


def train_all(
    config: RetrainConfig, splits: Sequence[Prepared], parent_run: str | None
) -> list[Trained]:
    """Train generalist, age classifier and specialists on each of some splits of the patients.

    Raises PedfracError naming what failed.
    """
    given = [{"config": config, "prepared": one, "parent_run": parent_run} for one in splits]
    groups = range(len(config.cohort.ages))
    with _runner(config, len(splits) * (2 + len(groups))) as runner:
        generalists = _begin(
            runner,
            [
                _Job(train_fracture, pipeline.fracture_training(config, one), own)
                for one, own in zip(splits, given, strict=True)
            ],
        )
        # beside the generalists' training, which needs no images of this size
        pack_images(config, splits[0].records, config.age.model)
        ages = _begin(
            runner,
            [
                _Job(train_age, pipeline.age_training(config, one), own)
                for one, own in zip(splits, given, strict=True)
            ],
        )
        warm = config.fracture.specialist.start == "generalist"
        starts = _keys(generalists) if warm else [None] * len(splits)
        specialists = _begin(
            runner,
            [
                _Job(
                    train_fracture,
                    pipeline.fracture_training(config, one, group, start),
                    own | {"generalist": start, "group": group},
                )
                for one, own, start in zip(splits, given, starts, strict=True)
                for group in groups
            ],
        )
        keys = iter(_keys([*generalists, *ages, *specialists]))
    first, second = (list(islice(keys, len(splits))) for _ in range(2))
    return [
        Trained(generalist=generalist, age=age, specialists=tuple(islice(keys, len(groups))))
        for generalist, age in zip(first, second, strict=True)
    ]


def score_folds(
    config: RetrainConfig, folds: Sequence[Prepared], trained: Sequence[Trained]
) -> str:
    """Score each fold's held-out images by its own networks; return the key of all, pooled."""
    jobs = []
    for fold, networks in zip(folds, trained, strict=True):
        bundle = assemble_bundle(config, fold, networks)
        given = {"config": config, "prepared": fold, "bundle": bundle}
        jobs.append(_Job(score_fold, pipeline.FoldScoring(config, fold, bundle), given))
    with _runner(config, len(jobs)) as runner:
        return pool_folds(config, _keys(_begin(runner, jobs), "folds"))


Future = PrefectConcurrentFuture[Any]


def _runner(config: RetrainConfig, jobs: int) -> ThreadPoolTaskRunner[Any]:
    """Return the task runner of the children, with the configured parallelism."""
    deployed = config.runtime.dispatch == "deployments"
    return ThreadPoolTaskRunner(max_workers=jobs if deployed else config.runtime.parallel)


def _begin(runner: ThreadPoolTaskRunner[Any], jobs: Sequence[_Job]) -> list[Future]:
    """Have jobs done; they are under way or wait for their turn."""
    futures: Any = runner.map(
        dispatch,
        {
            "name": [job.work.name for job in jobs],
            "child": [job.child for job in jobs],
            "work": [job.work for job in jobs],
            "given": [job.given for job in jobs],
        },
    )
    return list(futures)


def _keys(futures: Sequence[Future], what: str = "trainings") -> list[str]:
    """Wait for jobs and return what they made; raise PedfracError naming those that failed."""
    wait(list(futures))
    failed = [
        str(future.state.result(raise_on_failure=False))
        for future in futures
        if not future.state.is_completed()
    ]
    if failed:
        raise PedfracError(
            f"{len(failed)} of {len(futures)} {what} failed ({'; '.join(failed)}). "
            "The others are kept; another run does only what is missing"
        )
    return [future.result() for future in futures]
