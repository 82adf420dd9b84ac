"""Evaluation: from the scores of the test images to every metric of the report, with intervals.

Not here: how images are scored (bundle) and how metrics are computed (metrics) or shown (report).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pedfrac.age_groups import AgeGroups
from pedfrac.config.evaluation import EvaluationConfig
from pedfrac.errors import PedfracError
from pedfrac.evaluation.age_routing import routing_metrics
from pedfrac.evaluation.calibration import before_and_after
from pedfrac.evaluation.decision_curve import decision_curve
from pedfrac.evaluation.metadata_baseline import baseline_scores
from pedfrac.evaluation.subgroups import subgroup_metrics
from pedfrac.scoring.scorer import Scorer, routed
from pedfrac.scoring.studies import STUDY, to_studies
from pedfrac.scoring.thresholds import band_metrics
from pedfrac.statistics.classification import confusion
from pedfrac.statistics.curves import roc_and_pr
from pedfrac.statistics.intervals import Interval, missing
from pedfrac.statistics.patient_bootstrap import PatientBootstrap
from pedfrac.statistics.words import interval_in_words
from pedfrac.storage.files import write_json

PREDICTIONS, METRICS = "predictions.parquet", "metrics.json"
ALL = -1  # the group that stands for all images
BASELINES = {
    "age, sex, projection, side": False,
    "with cast, initial exam, study number, osteopenia": True,
}
NOT_LEARNT = "training images are all of one kind"


class Model(NamedTuple):
    """Which columns hold a model's probabilities and the age group it took, and whose scorer."""

    score: str
    group: str
    scorer: str


MODELS = {
    "bundle": Model("bundle", "group", "bundle"),
    "specialist": Model("specialist", "group", "specialist"),
    "generalist": Model("generalist", "group", "generalist"),
    "bundle by seen age": Model("seen", "group_seen", "bundle"),
}
DIFFERENCES = (("bundle", "generalist"), ("specialist", "generalist"))
SUMMARY = {
    "bundle AUROC": ("bundle", "auroc"),
    "sensitivity": ("bundle", "sensitivity"),
    "specificity": ("bundle", "specificity"),
    "specialist AUROC": ("specialist", "auroc"),
    "generalist AUROC": ("generalist", "auroc"),
}


def evaluate(
    predictions: pd.DataFrame,
    training: pd.DataFrame,
    ages: AgeGroups,
    scorers: Mapping[str, Scorer],
    config: EvaluationConfig,
    companions: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Return all metrics of the test images as JSON, each an interval over patients.

    ``predictions``: one row per test image: filestem, patient_id, study_number, fracture_visible,
    metadata, group, and what ``Bundle.score`` returns with every specialist asked. ``training``:
    metadata of the training and validation images, from which the baselines learn. ``scorers``: how
    images get their calls. An image is called by the threshold of the group that it was scored by;
    pooled areas take the calibrated probabilities as they are. ``companions``: scored images of the
    same studies that are no test images themselves; they count in the studies alone.

    ``groups`` and ``subsets`` are of images, ``studies`` holds both of studies. Metrics of
    operating points, calibration, routing and subgroups are the bundle's.
    Raises PedfracError where an image has no score.
    """
    others = [] if companions is None or companions.empty else [companions]
    whole_studies = call_images(pd.concat([predictions, *others]), training, scorers)
    images = whole_studies[: len(predictions)]
    judged = _rows(images, ages, config)
    return {
        **judged,
        "studies": {"rule": config.study_score} | _studies(whole_studies, ages, scorers, config),
        "baselines": judged["groups"][0]["baselines"],
        "curves": {name: _curves(images, name, config) for name in ("bundle", "generalist")},
        "age": _age_metrics(images, ages, config),
        "operating": _operating(images, ages, scorers, config),
        "calibration": _calibration(images, ages, scorers["bundle"], config),
        "decision": decision_curve(
            _bootstrap(images, config), images["fracture_visible"], images["bundle"]
        ),
        "routing": _routing(images, ages, scorers["bundle"], config),
        "subgroups": subgroup_metrics(
            images, images["bundle"], images["call bundle"], ages, config
        ),
    }


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
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return one table of the images that folds held out, with their fold, and its metrics as JSON.

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
    counts = [{"images": len(one), "patients": one["patient_id"].nunique()} for one in folds]
    metrics = {"folds": len(folds), "images": len(images), "patients": len(held_out)}
    return images, metrics | {"held_out": counts} | _rows(images, ages, config)


def save_evaluation(folder: Path, predictions: pd.DataFrame, metrics: dict[str, Any]) -> None:
    """Write predictions.parquet, one row an image, and metrics.json."""
    folder.mkdir(parents=True, exist_ok=True)
    predictions.to_parquet(folder / PREDICTIONS, index=False)
    write_json(folder / METRICS, metrics)


def load_evaluation(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the predictions and metrics that ``save_evaluation`` wrote."""
    return pd.read_parquet(folder / PREDICTIONS), json.loads((folder / METRICS).read_text())


def summary_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the main metrics in words, one row per age group and subset, for a table."""
    return [
        {
            "group": row["name"],
            **{name: row[name] for name in ("images", "patients", "fractured")},
            **{
                column: interval_in_words(row["models"][model][metric])
                for column, (model, metric) in SUMMARY.items()
            },
            "metadata alone AUROC": interval_in_words(row["baselines"][next(iter(BASELINES))]),
        }
        for row in (*metrics["groups"], *metrics["subsets"])
    ]


def in_words(metrics: dict[str, Any]) -> str:
    """Return the outcome in a sentence: the areas of models and baselines, the ages told."""
    areas = {name: model["auroc"] for name, model in metrics["groups"][0]["models"].items()}
    areas |= {f"metadata alone ({name})": area for name, area in metrics["baselines"].items()}
    told = "; ".join(f"{name} {interval_in_words(area)}" for name, area in areas.items())
    accuracy = interval_in_words(metrics["age"]["accuracy"])
    words = f"AUROC (95 % interval): {told}. Age group told from the image: accuracy {accuracy}."
    if (error := metrics["age"].get("mean_absolute_error")) is None:
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
    added: dict[str, NDArray[Any]] = {}
    for name, model in MODELS.items():
        limits = np.asarray(thresholds[model.scorer], np.float64)[
            images[model.group].to_numpy(dtype=np.int64)
        ]
        added |= {f"threshold {name}": limits, f"call {name}": images[model.score] >= limits}
    return images.assign(**added)


def _studies(
    images: pd.DataFrame, ages: AgeGroups, scorers: Mapping[str, Scorer], config: EvaluationConfig
) -> dict[str, Any]:
    """Return the rows of studies, each scored from its images and called at studies' thresholds."""
    said = images.filter(regex=r"^(network_|threshold |call |baseline |uncalibrated)").columns
    means = images.filter(regex=r"^baseline ").columns
    studies = to_studies(images.drop(columns=said), config.study_score)
    # the metadata of a study's images are much the same, so their baselines are averaged
    joined = images.groupby(STUDY, sort=True)[list(means)].mean().reset_index(drop=True)
    thresholds = {name: scorer.study_thresholds for name, scorer in scorers.items()}
    return _rows(_called(studies.join(joined), thresholds), ages, config)


def _rows(images: pd.DataFrame, ages: AgeGroups, config: EvaluationConfig) -> dict[str, Any]:
    """Return a row for all images and each age group, and one for each subset."""
    group = images["group"].to_numpy()
    cast, initial = (images[name].to_numpy(dtype=bool) for name in ("cast", "initial_exam"))
    subsets = {
        "no cast": ~cast,
        "initial exam": initial,
        "no cast, initial exam": ~cast & initial,
        "cast": cast,
        "follow-up": ~initial,
    }
    return {
        "groups": [{"group": ALL, "name": "all", **_row(images, config)}]
        + [
            {"group": index, "name": name, **_row(images[group == index], config)}
            for index, name in enumerate(ages.names)
        ],
        "subsets": [{"name": name, **_row(images[some], config)} for name, some in subsets.items()],
    }


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


def _bootstrap(images: pd.DataFrame, config: EvaluationConfig) -> PatientBootstrap:
    return PatientBootstrap(images["patient_id"], config.resamples, config.seed, config.interval)


def _row(images: pd.DataFrame, config: EvaluationConfig) -> dict[str, Any]:
    """Return the counts of some images and the metrics of each model and baseline on them."""
    truth = images["fracture_visible"].to_numpy(dtype=bool)
    bootstrap = _bootstrap(images, config)
    return {
        "images": len(images),
        "patients": int(images["patient_id"].nunique()),
        "fractured": int(truth.sum()),
        "models": {name: _model_metrics(bootstrap, truth, images, name) for name in MODELS},
        "baselines": {
            name: _baseline_area(bootstrap, truth, images[f"baseline {name}"]) for name in BASELINES
        },
        "above_baselines": {
            name: _gain_on_baseline(bootstrap, truth, images, name) for name in BASELINES
        },
        "differences": {
            f"{a} less {b}": _differences(bootstrap, truth, images, a, b) for a, b in DIFFERENCES
        },
    }


def _model_metrics(
    bootstrap: PatientBootstrap, truth: NDArray[np.bool_], images: pd.DataFrame, model: str
) -> dict[str, Any]:
    scores = images[MODELS[model].score].to_numpy(dtype=np.float64)
    call = images[f"call {model}"].to_numpy(dtype=bool)
    used = images[f"threshold {model}"].unique()
    return {
        "threshold": float(used[0]) if len(used) == 1 else None,
        "auroc": bootstrap.auroc_interval(truth, scores),
        "average_precision": bootstrap.average_precision_interval(truth, scores),
        "sensitivity": bootstrap.rate_interval(call, truth, "no fractured images"),
        "specificity": bootstrap.rate_interval(~call, ~truth, "no normal images"),
        "ppv": bootstrap.rate_interval(truth, call, "no image was called fractured"),
        "npv": bootstrap.rate_interval(~truth, ~call, "no image was called normal"),
        "accuracy": bootstrap.rate_interval(call == truth),
        "f1": bootstrap.f1_interval(truth, call),
        "confusion": confusion(truth, call, 2),
    }


def _differences(
    bootstrap: PatientBootstrap, truth: NDArray[np.bool_], images: pd.DataFrame, a: str, b: str
) -> dict[str, Any]:
    """Return how much larger the metrics of one model are than another's, paired by patients."""
    scores = [images[MODELS[name].score].to_numpy(dtype=np.float64) for name in (a, b)]
    calls = [images[f"call {name}"].to_numpy(dtype=bool) for name in (a, b)]
    return {
        "auroc": bootstrap.auroc_difference(truth, scores[0], scores[1]),
        "sensitivity": bootstrap.rate_difference(calls[0], calls[1], truth, "no fractured images"),
        "specificity": bootstrap.rate_difference(~calls[0], ~calls[1], ~truth, "no normal images"),
    }


def _gain_on_baseline(
    bootstrap: PatientBootstrap, truth: NDArray[np.bool_], images: pd.DataFrame, name: str
) -> Interval:
    """Return how much larger the bundle's AUROC is than a baseline's, paired by patients."""
    scores = images[f"baseline {name}"]
    if scores.isna().any():
        return missing(NOT_LEARNT)
    return bootstrap.auroc_difference(truth, images[MODELS["bundle"].score], scores)


def _baseline_area(
    bootstrap: PatientBootstrap, truth: NDArray[np.bool_], scores: pd.Series
) -> Interval:
    if scores.isna().any():
        return missing(NOT_LEARNT)
    return bootstrap.auroc_interval(truth, scores.to_numpy(dtype=np.float64))


def _operating(
    images: pd.DataFrame, ages: AgeGroups, scorers: Mapping[str, Scorer], config: EvaluationConfig
) -> dict[str, Any]:
    """Return the thresholds, and the metrics of images where some are not called."""
    scorer = scorers["bundle"]
    low, high = scorer.bounds(images["group"].to_numpy())
    return {
        "rule": config.threshold,
        "sensitivity_target": config.sensitivity if config.threshold == "sensitivity" else None,
        "thresholds": {
            name: {
                "pooled": one.pooled_threshold,
                "groups": list(one.thresholds),
                "weights": list(one.threshold_weights),
                "studies": list(one.study_thresholds),
            }
            for name, one in scorers.items()
        },
        "abstention": {
            "rule": config.abstention.rule,
            "reason": scorer.band_reason,
            "low": list(scorer.low),
            "high": list(scorer.high),
            "groups": [
                {"name": name}
                | band_metrics(
                    _bootstrap(images[some], config),
                    images["fracture_visible"][some],
                    images["bundle"][some],
                    low[some],
                    high[some],
                )
                for name, some in _all_and_groups(images, ages)
            ],
        },
    }


def _all_and_groups(
    images: pd.DataFrame, ages: AgeGroups
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield which images are of all, and of each age group, with its name."""
    yield "all", np.ones(len(images), bool)
    for index, name in enumerate(ages.names):
        yield name, images["group"].to_numpy() == index


def _calibration(
    images: pd.DataFrame, ages: AgeGroups, scorer: Scorer, config: EvaluationConfig
) -> dict[str, Any]:
    """Return how far the bundle's probabilities mean what they say, before and after its maps."""
    return {
        "method": config.calibration.method,
        "weights": list(scorer.calibrators.weights),
        "groups": [
            {"name": name}
            | before_and_after(
                _bootstrap(images[some], config),
                images["fracture_visible"][some],
                images["uncalibrated"][some],
                images["bundle"][some],
                config.calibration.bins,
            )
            for name, some in _all_and_groups(images, ages)
        ],
    }


def _routing(
    images: pd.DataFrame, ages: AgeGroups, scorer: Scorer, config: EvaluationConfig
) -> dict[str, Any]:
    by_group = routed(images, scorer)
    columns = {f"specialist_{group}": by_group[:, group] for group in range(len(ages))}
    return routing_metrics(images.assign(**columns), ages, list(scorer.thresholds), config)


def _age_metrics(images: pd.DataFrame, ages: AgeGroups, config: EvaluationConfig) -> dict[str, Any]:
    """Return how well the age group and, where it is estimated, the age is told from the image."""
    bootstrap = _bootstrap(images, config)
    group, seen = images["group"].to_numpy(), images["group_seen"].to_numpy()
    return {
        "accuracy": bootstrap.rate_interval(seen == group),
        "adjacent": bootstrap.rate_interval(abs(seen - group) <= 1),
        "f1": bootstrap.macro_f1_interval(group, seen),
        "confusion": confusion(group, seen, len(ages)),
        "names": ages.names,
        **({"mean_absolute_error": _age_error(images, bootstrap)} if "age_seen" in images else {}),
    }


def _age_error(images: pd.DataFrame, bootstrap: PatientBootstrap) -> Interval:
    """Return the mean absolute error of the estimated age in years, where the age is recorded."""
    known = images["age"].notna().to_numpy()
    errors = (images["age_seen"] - images["age"]).abs().to_numpy()
    return bootstrap.interval(bootstrap.ratio(np.where(known, errors, 0), known, scale="log"))


def _curves(images: pd.DataFrame, model: str, config: EvaluationConfig) -> dict[str, Any]:
    return roc_and_pr(
        _bootstrap(images, config), images["fracture_visible"], images[MODELS[model].score]
    )
