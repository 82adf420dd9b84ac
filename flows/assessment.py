"""The child flow that finds out what trained networks can do, where the GPU is."""

from prefect import flow, get_run_logger

from flows.infrastructure.dispatch import dispatch
from flows.infrastructure.forms import Settings
from flows.infrastructure.handover import made
from pedfrac.config.retrain import RetrainConfig
from pedfrac.pipeline.assessment import Assessment
from pedfrac.pipeline.keys import Evaluated, Prepared, Trained
from pedfrac.storage.inputs import Inputs
from tasks.bundle import assemble_bundle
from tasks.evaluation import evaluate_bundle
from tasks.explanation import explain_bundle
from tasks.progress import progress
from tasks.robustness import check_robustness

STEPS = ("assembling the bundle", "evaluating", "drawing heat maps", "disturbing images")


@flow(name="assess-bundle")
def assess_bundle(
    config: Settings,
    prepared: Prepared,
    trained: Trained,
    folds: str | None = None,
    expected: Inputs | None = None,
) -> str:
    """Assemble the bundle, evaluate, explain and disturb it; return the key of what was found.

    Args:
        config: What is retrained, on which data, and how
        prepared: Keys of the prepared data
        trained: Keys of the trained networks
        folds: Key of the pooled metrics of folds
        expected: What a retraining waits for; anything else is refused
    """
    work = Assessment(config, prepared, trained, folds)
    if expected:
        work.inputs.refuse_other(expected, work.name)
    return made(config, work.run(lambda: assess_here(config, prepared, trained, folds)))


def evaluate_and_explain(
    config: RetrainConfig, prepared: Prepared, trained: Trained, folds: str | None
) -> Evaluated:
    """Assemble the bundle and find out what it can do; metrics of pooled folds stand beside.

    With deployments a child of the GPU pool does it, else this process.
    """
    if config.runtime.dispatch != "deployments":
        return assess_here(config, prepared, trained, folds)
    work = Assessment(config, prepared, trained, folds)
    given = {"config": config, "prepared": prepared, "trained": trained, "folds": folds}
    dispatch(work.name, assess_bundle, work, given)
    return work.evaluated


def assess_here(
    config: RetrainConfig, prepared: Prepared, trained: Trained, folds: str | None
) -> Evaluated:
    """Do all steps in order, showing which one is under way."""
    logger = get_run_logger()
    with progress("assessment", "assessing the bundle") as show:

        def step(number: int) -> None:
            show(number, len(STEPS), STEPS[number])
            logger.info("%s (step %d of %d)", STEPS[number], number + 1, len(STEPS))

        step(0)
        bundle = assemble_bundle(config, prepared, trained)
        step(1)
        evaluation = evaluate_bundle(config, prepared, bundle, folds)
        step(2)
        explanation = explain_bundle(config, prepared, bundle, evaluation)
        step(3)
        robustness = check_robustness(config, prepared, bundle, evaluation)
        show(len(STEPS), len(STEPS), "done")
    return Evaluated(
        bundle=bundle, evaluation=evaluation, explanation=explanation, robustness=robustness
    )
