"""Evaluation: from the scores of the test images to every metric of the report, with intervals.

Not here: how images are scored (bundle) and how metrics are computed (metrics) or shown (report).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from pedfrac.age_groups import AgeGroups
from pedfrac.config.evaluation import EvaluationConfig
from pedfrac.config.loading import read_json_as
from pedfrac.errors import PedfracError
from pedfrac.evaluation.age_routing import Routing, routing_metrics
from pedfrac.evaluation.calibration import Calibration, before_and_after
from pedfrac.evaluation.decision_curve import Decision, decision_curve
from pedfrac.evaluation.metadata_baseline import baseline_scores
from pedfrac.evaluation.rows import (
    BASELINES,
    MODELS,
    Confusion,
    ModelName,
    Rows,
    bootstrap_of,
    rows_of,
)
from pedfrac.evaluation.subgroups import Subgroups, subgroup_metrics
from pedfrac.scoring.scorer import SCORERS, Scorer, ScorerName, routed
from pedfrac.scoring.studies import STUDY, to_studies
from pedfrac.scoring.thresholds import BandMetrics, band_metrics
from pedfrac.statistics.classification import confusion
from pedfrac.statistics.curves import Curves, roc_and_pr
from pedfrac.statistics.intervals import Interval
from pedfrac.statistics.patient_bootstrap import PatientBootstrap
from pedfrac.statistics.result import Result
from pedfrac.statistics.words import interval_in_words
from pedfrac.storage.files import write_json

PREDICTIONS, METRICS = "predictions.parquet", "metrics.json"
DRAWN: tuple[ModelName, ...] = ("bundle", "generalist")  # whose curves are drawn
SUMMARY: dict[str, tuple[ModelName, str]] = {
    "bundle AUROC": ("bundle", "auroc"),
    "sensitivity": ("bundle", "sensitivity"),
    "specificity": ("bundle", "specificity"),
    "specialist AUROC": ("specialist", "auroc"),
    "generalist AUROC": ("generalist", "auroc"),
}


class Studies(Rows):
    """The same rows with all images of an examination joined by the rule."""

    rule: str


class AgeMetrics(Result):
    """How well the age group is told from the image."""

    accuracy: Interval
    adjacent: Interval = Field(description="Share of images at most one group off")
    f1: Interval
    confusion: Confusion
    names: list[str]
    mean_absolute_error: Interval | None = Field(None, description="Years, if the head tells them")


class Thresholds(Result):
    """From which probability images are called fractured, by age group."""

    pooled: float
    groups: list[float]
    weights: list[float] = Field(description="How far each group's own images set its threshold")
    studies: list[float]


class GroupBand(BandMetrics):
    """The images of an age group that are called."""

    name: str


class Abstention(Result):
    """The band of images that are left to a reader, by age group."""

    rule: str
    reason: str
    low: list[float | None]
    high: list[float | None]
    groups: list[GroupBand]


class Operating(Result):
    """Operating points, all chosen on validation images."""

    rule: str
    sensitivity_target: float | None
    thresholds: dict[ScorerName, Thresholds]
    abstention: Abstention


class Counted(Result):
    """Images and the patients they are of."""

    images: int
    patients: int


class Folds(Rows, Counted):
    """Images that folds held out in turn, each scored by networks of its fold, pooled."""

    folds: int
    held_out: list[Counted] = Field(description="From each fold")


class Evaluation(Rows):
    """What the evaluation finds on the test images."""

    studies: Studies
    baselines: dict[str, Interval]
    curves: dict[ModelName, Curves]
    age: AgeMetrics
    operating: Operating
    calibration: Calibration
    decision: Decision
    routing: Routing
    subgroups: Subgroups
    folds: Folds | None = Field(None, description="Pooled out-of-fold metrics")


def evaluate(
    predictions: pd.DataFrame,
    training: pd.DataFrame,
    ages: AgeGroups,
    scorers: Mapping[str, Scorer],
    config: EvaluationConfig,
    companions: pd.DataFrame | None = None,
    folds: Folds | None = None,
) -> Evaluation:
    """Return all metrics of the test images, each an interval over patients.

    ``predictions``: one row per test image: filestem, patient_id, study_number, fracture_visible,
    metadata, group, and what ``Bundle.score`` returns with every specialist asked. ``training``:
    metadata of the training and validation images, from which the baselines learn. ``scorers``: how
    images get their calls. An image is called by the threshold of the group that it was scored by;
    pooled areas take the calibrated probabilities as they are. ``companions``: scored images of the
    same studies that are no test images themselves; they count in the studies alone. ``folds``:
    metrics of pooled folds, to stand beside.

    ``groups`` and ``subsets`` are of images, ``studies`` holds both of studies. Metrics of
    operating points, calibration, routing and subgroups are the bundle's.
    Raises PedfracError where an image has no score.
    """
    others = [] if companions is None or companions.empty else [companions]
    whole_studies = call_images(pd.concat([predictions, *others]), training, scorers)
    images = whole_studies[: len(predictions)]
    judged = rows_of(images, ages, config)
    return Evaluation(
        groups=judged.groups,
        subsets=judged.subsets,
        studies=_studies(whole_studies, ages, scorers, config),
        baselines=judged.whole.baselines,
        curves={name: _curves(images, name, config) for name in DRAWN},
        age=_age_metrics(images, ages, config),
        operating=_operating(images, ages, scorers, config),
        calibration=_calibration(images, ages, scorers["bundle"], config),
        decision=decision_curve(
            bootstrap_of(images, config), images["fracture_visible"], images["bundle"]
        ),
        routing=_routing(images, ages, scorers["bundle"], config),
        subgroups=subgroup_metrics(images, images["bundle"], images["call bundle"], ages, config),
        folds=folds,
    )


def call_images(
    predictions: pd.DataFrame, training: pd.DataFrame, scorers: Mapping[str, Scorer]
) -> pd.DataFrame:
    """Return scored images (see ``evaluate``) with each model's call and the baselines' scores.

    Raises PedfracError where an image has no score.
    """
    _refuse_unscored(predictions)
    baselines = _baselines(training, predictions)
    return _called(
        predictions.assign(**{f"baseline {name}": scores for name, scores in baselines}),
        {name: scorer.thresholds for name, scorer in scorers.items()},
    )


def pooled_metrics(
    folds: Sequence[pd.DataFrame], ages: AgeGroups, config: EvaluationConfig
) -> tuple[pd.DataFrame, Folds]:
    """Return one table of the images that folds held out, with their fold, and its metrics.

    ``folds``: what ``call_images`` returned for each, by the networks, maps, thresholds and
    baselines of that fold; so areas, too, compare images of different networks, whose probabilities
    only calibration makes comparable. ``groups`` and ``subsets`` are rows as ``evaluate`` has them.
    They tell how well the procedure does, with less to learn from, not the bundle itself.
    Raises PedfracError where a patient was held out from two folds.
    """
    images = pd.concat(
        [table.assign(fold=number) for number, table in enumerate(folds)], ignore_index=True
    )
    held_out = images.groupby("patient_id")["fold"].nunique()
    if twice := held_out.index[held_out > 1].tolist():
        raise PedfracError(f"folds: patients {twice[:3]} were held out from more than one")
    pooled = rows_of(images, ages, config)
    return images, Folds(
        folds=len(folds),
        images=len(images),
        patients=len(held_out),
        held_out=[Counted(images=len(one), patients=one["patient_id"].nunique()) for one in folds],
        groups=pooled.groups,
        subsets=pooled.subsets,
    )


def save_evaluation(folder: Path, predictions: pd.DataFrame, metrics: Evaluation | Folds) -> None:
    """Write predictions.parquet, one row an image, and metrics.json."""
    folder.mkdir(parents=True, exist_ok=True)
    predictions.to_parquet(folder / PREDICTIONS, index=False)
    write_json(folder / METRICS, metrics.model_dump(mode="json"))


def load_predictions(folder: Path) -> pd.DataFrame:
    """Return the scored test images that ``save_evaluation`` wrote."""
    return pd.read_parquet(folder / PREDICTIONS)


def load_metrics(folder: Path) -> Evaluation:
    """Return the metrics that ``save_evaluation`` wrote. Raises PedfracError that names a fault."""
    return read_json_as(folder / METRICS, Evaluation)


def load_folds(folder: Path) -> Folds:
    """Return the metrics of pooled folds. Raises PedfracError that names a fault."""
    return read_json_as(folder / METRICS, Folds)


def summary_rows(metrics: Rows) -> list[dict[str, object]]:
    """Return the main metrics in words, one row per age group and subset, for a table."""
    return [
        {
            "group": row.name,
            **{name: getattr(row, name) for name in ("images", "patients", "fractured")},
            **{
                column: interval_in_words(getattr(row.models[model], metric))
                for column, (model, metric) in SUMMARY.items()
            },
            "metadata alone AUROC": interval_in_words(row.baselines[next(iter(BASELINES))]),
        }
        for row in (*metrics.groups, *metrics.subsets)
    ]


def in_words(metrics: Evaluation) -> str:
    """Return the outcome in a sentence: the areas of models and baselines, the ages told."""
    areas = {str(name): model.auroc for name, model in metrics.whole.models.items()}
    areas |= {f"metadata alone ({name})": area for name, area in metrics.baselines.items()}
    told = "; ".join(f"{name} {interval_in_words(area)}" for name, area in areas.items())
    accuracy = interval_in_words(metrics.age.accuracy)
    words = f"AUROC (95 % interval): {told}. Age group told from the image: accuracy {accuracy}."
    if (error := metrics.age.mean_absolute_error) is None:
        return words
    return f"{words} Estimated age: mean absolute error {interval_in_words(error)} years."


def _refuse_unscored(predictions: pd.DataFrame) -> None:
    scores = predictions[[model.score for model in MODELS.values()]]
    if (bad := ~np.isfinite(scores.to_numpy(dtype=np.float64)).all(axis=1)).any():
        names = predictions["filestem"][bad]
        raise PedfracError(
            f"{len(names)} of {len(predictions)} test images have a score that is no number, "
            f"such as {names.iloc[0]}; is its age within the groups, and did training converge?"
        )


def _called(images: pd.DataFrame, thresholds: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """Return images with the threshold and the call of each model."""
    added: dict[str, NDArray[np.float64] | pd.Series] = {}
    for name, model in MODELS.items():
        limits = np.asarray(thresholds[model.scorer], np.float64)[
            images[model.group].to_numpy(dtype=np.int64)
        ]
        added |= {f"threshold {name}": limits, f"call {name}": images[model.score] >= limits}
    return images.assign(**added)


def _studies(
    images: pd.DataFrame, ages: AgeGroups, scorers: Mapping[str, Scorer], config: EvaluationConfig
) -> Studies:
    """Return the rows of studies, each scored from its images and called at studies' thresholds."""
    said = images.filter(regex=r"^(network_|threshold |call |baseline |uncalibrated)").columns
    means = images.filter(regex=r"^baseline ").columns
    studies = to_studies(images.drop(columns=said), config.study_score)
    # the metadata of a study's images are much the same, so their baselines are averaged
    joined = images.groupby(STUDY, sort=True)[list(means)].mean().reset_index(drop=True)
    thresholds = {name: scorer.study_thresholds for name, scorer in scorers.items()}
    rows = rows_of(_called(studies.join(joined), thresholds), ages, config)
    return Studies(rule=config.study_score, groups=rows.groups, subsets=rows.subsets)


def _baselines(
    training: pd.DataFrame, images: pd.DataFrame
) -> list[tuple[str, NDArray[np.float64]]]:
    """Return the scores of each baseline, NaN where training images are of one kind."""
    if training["fracture_visible"].nunique() < 2 or images.empty:
        return [(name, np.full(len(images), np.nan)) for name in BASELINES]
    return [
        (name, baseline_scores(training, images, clinical=clinical))
        for name, clinical in BASELINES.items()
    ]


def _operating(
    images: pd.DataFrame, ages: AgeGroups, scorers: Mapping[str, Scorer], config: EvaluationConfig
) -> Operating:
    """Return the thresholds, and the metrics of images where some are not called."""
    scorer = scorers["bundle"]
    low, high = scorer.bounds(images["group"].to_numpy())
    return Operating(
        rule=config.threshold,
        sensitivity_target=config.sensitivity if config.threshold == "sensitivity" else None,
        thresholds={name: _thresholds(scorers[name]) for name in SCORERS},
        abstention=Abstention(
            rule=config.abstention.rule,
            reason=scorer.band_reason,
            low=list(scorer.low),
            high=list(scorer.high),
            groups=[
                GroupBand(
                    name=name,
                    **dict(
                        band_metrics(
                            bootstrap_of(images[some], config),
                            images["fracture_visible"][some],
                            images["bundle"][some],
                            low[some],
                            high[some],
                        )
                    ),
                )
                for name, some in _all_and_groups(images, ages)
            ],
        ),
    )


def _thresholds(scorer: Scorer) -> Thresholds:
    return Thresholds(
        pooled=scorer.pooled_threshold,
        groups=list(scorer.thresholds),
        weights=list(scorer.threshold_weights),
        studies=list(scorer.study_thresholds),
    )


def _all_and_groups(
    images: pd.DataFrame, ages: AgeGroups
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield which images are of all, and of each age group, with its name."""
    yield "all", np.ones(len(images), bool)
    for index, name in enumerate(ages.names):
        yield name, images["group"].to_numpy() == index


def _calibration(
    images: pd.DataFrame, ages: AgeGroups, scorer: Scorer, config: EvaluationConfig
) -> Calibration:
    """Return how far the bundle's probabilities mean what they say, before and after its maps."""
    return Calibration(
        method=config.calibration.method,
        weights=list(scorer.calibrators.weights),
        groups=[
            before_and_after(
                name,
                bootstrap_of(images[some], config),
                images["fracture_visible"][some],
                images["uncalibrated"][some],
                images["bundle"][some],
                config.calibration_bins,
            )
            for name, some in _all_and_groups(images, ages)
        ],
    )


def _routing(
    images: pd.DataFrame, ages: AgeGroups, scorer: Scorer, config: EvaluationConfig
) -> Routing:
    by_group = routed(images, scorer)
    columns = {f"specialist_{group}": by_group[:, group] for group in range(len(ages))}
    return routing_metrics(images.assign(**columns), ages, list(scorer.thresholds), config)


def _age_metrics(images: pd.DataFrame, ages: AgeGroups, config: EvaluationConfig) -> AgeMetrics:
    """Return how well the age group and, where it is estimated, the age is told from the image."""
    bootstrap = bootstrap_of(images, config)
    group, seen = images["group"].to_numpy(), images["group_seen"].to_numpy()
    return AgeMetrics(
        accuracy=bootstrap.rate_interval(seen == group),
        adjacent=bootstrap.rate_interval(abs(seen - group) <= 1),
        f1=bootstrap.macro_f1_interval(group, seen),
        confusion=confusion(group, seen, len(ages)),
        names=ages.names,
        mean_absolute_error=_age_error(images, bootstrap) if "age_seen" in images else None,
    )


def _age_error(images: pd.DataFrame, bootstrap: PatientBootstrap) -> Interval:
    """Return the mean absolute error of the estimated age in years, where the age is recorded."""
    known = images["age"].notna().to_numpy()
    errors = (images["age_seen"] - images["age"]).abs().to_numpy()
    return bootstrap.interval(bootstrap.ratio(np.where(known, errors, 0), known, scale="log"))


def _curves(images: pd.DataFrame, model: ModelName, config: EvaluationConfig) -> Curves:
    return roc_and_pr(
        bootstrap_of(images, config), images["fracture_visible"], images[MODELS[model].score]
    )
