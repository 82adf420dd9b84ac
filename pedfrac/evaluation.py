"""Evaluation: from the scores of the test films to every figure of the report, with intervals.

Not here: how films are scored (bundle) and how figures are computed (metrics) or shown (report).
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from pedfrac.ages import AgeGroups
from pedfrac.baseline import baseline_scores
from pedfrac.config import EvaluationConfig
from pedfrac.errors import PedfracError
from pedfrac.metrics import Interval, PatientBootstrap, confusion, interval_in_words
from pedfrac.storage import write_json

PREDICTIONS, FIGURES = "predictions.parquet", "figures.json"
ALL = -1  # the group that stands for all films
BASELINES = {
    "age, sex, projection, side": False,
    "with cast, initial exam, osteopenia": True,
}


class Model(NamedTuple):
    """Which columns of the predictions hold a model's scores and the group it was chosen by."""

    score: str
    group: str | None


MODELS = {
    "specialist": Model("recorded", "group"),
    "generalist": Model("generalist", None),
    "specialist by seen age": Model("seen", "group_seen"),
}
SUMMARY = {
    "specialist AUROC": ("specialist", "auroc"),
    "sensitivity": ("specialist", "sensitivity"),
    "specificity": ("specialist", "specificity"),
    "generalist AUROC": ("generalist", "auroc"),
}


def evaluate(
    predictions: pd.DataFrame,
    training: pd.DataFrame,
    ages: AgeGroups,
    thresholds: dict[str, Any],
    config: EvaluationConfig,
) -> dict[str, Any]:
    """Return all figures of the test films as JSON, each an interval over patients.

    ``predictions``: one row per test film: filestem, patient_id, fracture_visible, metadata, group
    and group_seen, and probabilities recorded, generalist, seen. ``training``: metadata of the
    training and validation films, from which the baselines learn. ``thresholds``: generalist, and
    specialists by group. A film is called by the threshold of the network that scored it; pooled
    areas take the probabilities as they are.
    Raises PedfracError where a film has no score.
    """
    _refuse_unscored(predictions)
    films = predictions.assign(
        **{f"threshold {name}": _limits(predictions, name, thresholds) for name in MODELS},
        **{f"baseline {name}": scores for name, scores in _baselines(training, predictions)},
    )
    group = films["group"].to_numpy()
    cast, initial = (films[name].to_numpy(dtype=bool) for name in ("cast", "initial_exam"))
    subsets = {
        "no cast": ~cast,
        "initial exam": initial,
        "no cast, initial exam": ~cast & initial,
        "cast": cast,
        "follow-up": ~initial,
    }
    rows = [{"group": ALL, "name": "all", **_row(films, config)}] + [
        {"group": index, "name": name, **_row(films[group == index], config)}
        for index, name in enumerate(ages.names)
    ]
    return {
        "groups": rows,
        "subsets": [{"name": name, **_row(films[some], config)} for name, some in subsets.items()],
        "age": _age_figures(films, ages, config),
        "baselines": rows[0]["baselines"],
        "roc": {name: _curve(films, MODELS[name]) for name in ("specialist", "generalist")},
    }


def save_evaluation(folder: Path, predictions: pd.DataFrame, figures: dict[str, Any]) -> None:
    """Write predictions.parquet, one row a film, and figures.json."""
    folder.mkdir(parents=True, exist_ok=True)
    predictions.to_parquet(folder / PREDICTIONS, index=False)
    write_json(folder / FIGURES, figures)


def load_evaluation(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the predictions and figures that ``save_evaluation`` wrote."""
    return pd.read_parquet(folder / PREDICTIONS), json.loads((folder / FIGURES).read_text())


def summary_rows(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the main figures in words, one row per age group and subset, for a table."""
    return [
        {
            "films": row["name"],
            **{name: row[name] for name in ("images", "patients", "fractured")},
            **{
                column: interval_in_words(row["models"][model][figure])
                for column, (model, figure) in SUMMARY.items()
            },
            "metadata alone AUROC": interval_in_words(row["baselines"][next(iter(BASELINES))]),
        }
        for row in (*figures["groups"], *figures["subsets"])
    ]


def in_words(figures: dict[str, Any]) -> str:
    """Return the outcome in a sentence: the areas of models and baselines, the ages told."""
    areas = {name: model["auroc"] for name, model in figures["groups"][0]["models"].items()}
    areas |= {f"metadata alone ({name})": area for name, area in figures["baselines"].items()}
    told = "; ".join(f"{name} {interval_in_words(area)}" for name, area in areas.items())
    accuracy = interval_in_words(figures["age"]["accuracy"])
    return f"AUROC (95 % interval): {told}. Age group told from the film: accuracy {accuracy}."


def _refuse_unscored(predictions: pd.DataFrame) -> None:
    scores = predictions[[model.score for model in MODELS.values()]]
    if (bad := ~np.isfinite(scores.to_numpy(dtype=np.float64)).all(axis=1)).any():
        names = predictions["filestem"][bad]
        raise PedfracError(
            f"{len(names)} of {len(predictions)} test films have a score that is no number, "
            f"such as {names.iloc[0]}; is its age within the groups, and did training converge?"
        )


def _limits(films: pd.DataFrame, name: str, thresholds: dict[str, Any]) -> NDArray[np.float64]:
    """Return the threshold by which each film is called, (n,)."""
    column = MODELS[name].group
    if column is None:
        return np.full(len(films), float(thresholds["generalist"]))
    return np.asarray(thresholds["specialists"], np.float64)[films[column].to_numpy()]


def _baselines(
    training: pd.DataFrame, films: pd.DataFrame
) -> list[tuple[str, NDArray[np.float64] | None]]:
    """Return the scores of each baseline, none where training films are of one kind."""
    learnable = training["fracture_visible"].nunique() == 2 and len(films) > 0
    return [
        (name, baseline_scores(training, films, clinical=clinical) if learnable else None)
        for name, clinical in BASELINES.items()
    ]


def _bootstrap(films: pd.DataFrame, config: EvaluationConfig) -> PatientBootstrap:
    return PatientBootstrap(films["patient_id"], config.resamples, config.seed, config.interval)


def _row(films: pd.DataFrame, config: EvaluationConfig) -> dict[str, Any]:
    """Return the counts of some films and the figures of each model and baseline on them."""
    truth = films["fracture_visible"].to_numpy(dtype=bool)
    bootstrap = _bootstrap(films, config)
    return {
        "images": len(films),
        "patients": int(films["patient_id"].nunique()),
        "fractured": int(truth.sum()),
        "models": {
            name: _model_figures(
                bootstrap,
                truth,
                films[model.score].to_numpy(dtype=np.float64),
                films[f"threshold {name}"].to_numpy(dtype=np.float64),
            )
            for name, model in MODELS.items()
        },
        "baselines": {
            name: _baseline_area(bootstrap, truth, films[f"baseline {name}"]) for name in BASELINES
        },
    }


def _model_figures(
    bootstrap: PatientBootstrap,
    truth: NDArray[np.bool_],
    scores: NDArray[np.float64],
    limits: NDArray[np.float64],
) -> dict[str, Any]:
    call = scores >= limits
    used = np.unique(limits)
    return {
        "threshold": float(used[0]) if len(used) == 1 else None,
        "auroc": bootstrap.auroc_interval(truth, scores),
        "average_precision": bootstrap.average_precision_interval(truth, scores),
        "sensitivity": bootstrap.rate_interval(call, truth, "no fractured films"),
        "specificity": bootstrap.rate_interval(~call, ~truth, "no normal films"),
        "accuracy": bootstrap.rate_interval(call == truth),
        "f1": bootstrap.f1_interval(truth, call),
        "confusion": confusion(truth, call, 2),
    }


def _baseline_area(
    bootstrap: PatientBootstrap, truth: NDArray[np.bool_], scores: pd.Series
) -> Interval:
    if scores.isna().any():
        reason = "training films are all of one kind"
        return {"value": None, "low": None, "high": None, "reason": reason}
    return bootstrap.auroc_interval(truth, scores.to_numpy(dtype=np.float64))


def _age_figures(films: pd.DataFrame, ages: AgeGroups, config: EvaluationConfig) -> dict[str, Any]:
    """Return how well the age group is told from the film."""
    bootstrap = _bootstrap(films, config)
    group, seen = films["group"].to_numpy(), films["group_seen"].to_numpy()
    return {
        "accuracy": bootstrap.rate_interval(seen == group),
        "adjacent": bootstrap.rate_interval(abs(seen - group) <= 1),
        "f1": bootstrap.macro_f1_interval(group, seen),
        "confusion": confusion(group, seen, len(ages)),
        "names": ages.names,
    }


def _curve(films: pd.DataFrame, model: Model) -> dict[str, list[float]]:
    """Return the points of the ROC curve; none where the films are all of one kind."""
    if films["fracture_visible"].nunique() < 2:
        return {"fpr": [], "tpr": []}
    alarms, hits, _ = roc_curve(films["fracture_visible"], films[model.score])
    return {"fpr": alarms.tolist(), "tpr": hits.tolist()}
