"""Evaluation: from the scores of the test films to every figure of the report, with intervals.

Not here: how films are scored (bundle) and how figures are computed (metrics) or shown (report).
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
from pedfrac.evaluation.age_routing import routing_figures
from pedfrac.evaluation.calibration import before_and_after
from pedfrac.evaluation.decision_curve import decision_curve
from pedfrac.evaluation.metadata_baseline import baseline_scores
from pedfrac.evaluation.subgroups import subgroup_figures
from pedfrac.scoring.scorer import Scorer, routed
from pedfrac.scoring.studies import STUDY, to_studies
from pedfrac.scoring.thresholds import band_figures
from pedfrac.statistics.classification import confusion
from pedfrac.statistics.curves import roc_and_pr
from pedfrac.statistics.intervals import Interval, missing
from pedfrac.statistics.patient_bootstrap import PatientBootstrap
from pedfrac.statistics.words import interval_in_words
from pedfrac.storage.files import write_json

PREDICTIONS, FIGURES = "predictions.parquet", "figures.json"
ALL = -1  # the group that stands for all films
BASELINES = {
    "age, sex, projection, side": False,
    "with cast, initial exam, study number, osteopenia": True,
}
NOT_LEARNT = "training films are all of one kind"


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
    """Return all figures of the test films as JSON, each an interval over patients.

    ``predictions``: one row per test film: filestem, patient_id, study_number, fracture_visible,
    metadata, group, and what ``Bundle.score`` returns with every specialist asked. ``training``:
    metadata of the training and validation films, from which the baselines learn. ``scorers``: how
    films get their calls. A film is called by the threshold of the group that it was scored by;
    pooled areas take the calibrated probabilities as they are. ``companions``: scored films of the
    same studies that are no test films themselves; they count in the studies alone.

    ``groups`` and ``subsets`` are of films, ``studies`` holds both of studies. Figures of operating
    points, calibration, routing and subgroups are the bundle's.
    Raises PedfracError where a film has no score.
    """
    others = [] if companions is None or companions.empty else [companions]
    whole_studies = call_films(pd.concat([predictions, *others]), training, scorers)
    films = whole_studies[: len(predictions)]
    judged = _rows(films, ages, config)
    return {
        **judged,
        "studies": {"rule": config.study_score} | _studies(whole_studies, ages, scorers, config),
        "baselines": judged["groups"][0]["baselines"],
        "curves": {name: _curves(films, name, config) for name in ("bundle", "generalist")},
        "age": _age_figures(films, ages, config),
        "operating": _operating(films, ages, scorers, config),
        "calibration": _calibration(films, ages, scorers["bundle"], config),
        "decision": decision_curve(
            _bootstrap(films, config), films["fracture_visible"], films["bundle"]
        ),
        "routing": _routing(films, ages, scorers["bundle"], config),
        "subgroups": subgroup_figures(films, films["bundle"], films["call bundle"], ages, config),
    }


def call_films(
    predictions: pd.DataFrame, training: pd.DataFrame, scorers: Mapping[str, Scorer]
) -> pd.DataFrame:
    """Return scored films (see ``evaluate``) with each model's call and the baselines' scores.

    Raises PedfracError where a film has no score.
    """
    _refuse_unscored(predictions)
    baselines = _baselines(training, predictions)
    return _called(
        predictions.assign(**{f"baseline {name}": scores for name, scores in baselines}),
        {name: scorer.thresholds for name, scorer in scorers.items()},
    )


def pooled_figures(
    folds: Sequence[pd.DataFrame], ages: AgeGroups, config: EvaluationConfig
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return one table of the films that folds held out, with their fold, and its figures as JSON.

    ``folds``: what ``call_films`` returned for each, by the networks, maps, thresholds and
    baselines of that fold; so areas, too, compare films of different networks, whose probabilities
    only calibration makes comparable. ``groups`` and ``subsets`` are rows as ``evaluate`` has them.
    They tell how well the procedure does, with less to learn from, not the bundle itself.
    Raises PedfracError where a patient was held out from two folds.
    """
    films = pd.concat(
        [table.assign(fold=number) for number, table in enumerate(folds)], ignore_index=True
    )
    held_out = films.groupby("patient_id")["fold"].nunique()
    if twice := held_out.index[held_out > 1].tolist():
        raise PedfracError(f"folds: patients {twice[:3]} were held out from more than one")
    counts = [{"films": len(one), "patients": one["patient_id"].nunique()} for one in folds]
    figures = {"folds": len(folds), "films": len(films), "patients": len(held_out)}
    return films, figures | {"held_out": counts} | _rows(films, ages, config)


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
    words = f"AUROC (95 % interval): {told}. Age group told from the film: accuracy {accuracy}."
    if (error := figures["age"].get("mean_absolute_error")) is None:
        return words
    return f"{words} Estimated age: mean absolute error {interval_in_words(error)} years."


def _refuse_unscored(predictions: pd.DataFrame) -> None:
    scores = predictions[[model.score for model in MODELS.values()]]
    if (bad := ~np.isfinite(scores.to_numpy(dtype=np.float64)).all(axis=1)).any():
        names = predictions["filestem"][bad]
        raise PedfracError(
            f"{len(names)} of {len(predictions)} test films have a score that is no number, "
            f"such as {names.iloc[0]}; is its age within the groups, and did training converge?"
        )


def _called(films: pd.DataFrame, thresholds: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """Return films with the threshold and the call of each model."""
    added: dict[str, NDArray[Any]] = {}
    for name, model in MODELS.items():
        limits = np.asarray(thresholds[model.scorer], np.float64)[
            films[model.group].to_numpy(dtype=np.int64)
        ]
        added |= {f"threshold {name}": limits, f"call {name}": films[model.score] >= limits}
    return films.assign(**added)


def _studies(
    films: pd.DataFrame, ages: AgeGroups, scorers: Mapping[str, Scorer], config: EvaluationConfig
) -> dict[str, Any]:
    """Return the rows of studies, each scored from its films and called at studies' thresholds."""
    said = films.filter(regex=r"^(network_|threshold |call |baseline |uncalibrated)").columns
    means = films.filter(regex=r"^baseline ").columns
    studies = to_studies(films.drop(columns=said), config.study_score)
    # the metadata of a study's films are much the same, so their baselines are averaged
    joined = films.groupby(STUDY, sort=True)[list(means)].mean().reset_index(drop=True)
    thresholds = {name: scorer.study_thresholds for name, scorer in scorers.items()}
    return _rows(_called(studies.join(joined), thresholds), ages, config)


def _rows(films: pd.DataFrame, ages: AgeGroups, config: EvaluationConfig) -> dict[str, Any]:
    """Return a row for all films and each age group, and one for each subset."""
    group = films["group"].to_numpy()
    cast, initial = (films[name].to_numpy(dtype=bool) for name in ("cast", "initial_exam"))
    subsets = {
        "no cast": ~cast,
        "initial exam": initial,
        "no cast, initial exam": ~cast & initial,
        "cast": cast,
        "follow-up": ~initial,
    }
    return {
        "groups": [{"group": ALL, "name": "all", **_row(films, config)}]
        + [
            {"group": index, "name": name, **_row(films[group == index], config)}
            for index, name in enumerate(ages.names)
        ],
        "subsets": [{"name": name, **_row(films[some], config)} for name, some in subsets.items()],
    }


def _baselines(
    training: pd.DataFrame, films: pd.DataFrame
) -> list[tuple[str, NDArray[np.float64]]]:
    """Return the scores of each baseline, NaN where training films are of one kind."""
    if training["fracture_visible"].nunique() < 2 or films.empty:
        return [(name, np.full(len(films), np.nan)) for name in BASELINES]
    return [
        (name, baseline_scores(training, films, clinical=clinical))
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
        "models": {name: _model_figures(bootstrap, truth, films, name) for name in MODELS},
        "baselines": {
            name: _baseline_area(bootstrap, truth, films[f"baseline {name}"]) for name in BASELINES
        },
        "above_baselines": {
            name: _gain_on_baseline(bootstrap, truth, films, name) for name in BASELINES
        },
        "differences": {
            f"{a} less {b}": _differences(bootstrap, truth, films, a, b) for a, b in DIFFERENCES
        },
    }


def _model_figures(
    bootstrap: PatientBootstrap, truth: NDArray[np.bool_], films: pd.DataFrame, model: str
) -> dict[str, Any]:
    scores = films[MODELS[model].score].to_numpy(dtype=np.float64)
    call = films[f"call {model}"].to_numpy(dtype=bool)
    used = films[f"threshold {model}"].unique()
    return {
        "threshold": float(used[0]) if len(used) == 1 else None,
        "auroc": bootstrap.auroc_interval(truth, scores),
        "average_precision": bootstrap.average_precision_interval(truth, scores),
        "sensitivity": bootstrap.rate_interval(call, truth, "no fractured films"),
        "specificity": bootstrap.rate_interval(~call, ~truth, "no normal films"),
        "ppv": bootstrap.rate_interval(truth, call, "no film was called fractured"),
        "npv": bootstrap.rate_interval(~truth, ~call, "no film was called normal"),
        "accuracy": bootstrap.rate_interval(call == truth),
        "f1": bootstrap.f1_interval(truth, call),
        "confusion": confusion(truth, call, 2),
    }


def _differences(
    bootstrap: PatientBootstrap, truth: NDArray[np.bool_], films: pd.DataFrame, a: str, b: str
) -> dict[str, Any]:
    """Return how much larger the figures of one model are than another's, paired by patients."""
    scores = [films[MODELS[name].score].to_numpy(dtype=np.float64) for name in (a, b)]
    calls = [films[f"call {name}"].to_numpy(dtype=bool) for name in (a, b)]
    return {
        "auroc": bootstrap.auroc_difference(truth, scores[0], scores[1]),
        "sensitivity": bootstrap.rate_difference(calls[0], calls[1], truth, "no fractured films"),
        "specificity": bootstrap.rate_difference(~calls[0], ~calls[1], ~truth, "no normal films"),
    }


def _gain_on_baseline(
    bootstrap: PatientBootstrap, truth: NDArray[np.bool_], films: pd.DataFrame, name: str
) -> Interval:
    """Return how much larger the bundle's AUROC is than a baseline's, paired by patients."""
    scores = films[f"baseline {name}"]
    if scores.isna().any():
        return missing(NOT_LEARNT)
    return bootstrap.auroc_difference(truth, films[MODELS["bundle"].score], scores)


def _baseline_area(
    bootstrap: PatientBootstrap, truth: NDArray[np.bool_], scores: pd.Series
) -> Interval:
    if scores.isna().any():
        return missing(NOT_LEARNT)
    return bootstrap.auroc_interval(truth, scores.to_numpy(dtype=np.float64))


def _operating(
    films: pd.DataFrame, ages: AgeGroups, scorers: Mapping[str, Scorer], config: EvaluationConfig
) -> dict[str, Any]:
    """Return where films begin to be called, and the figures of films where some are not called."""
    scorer = scorers["bundle"]
    low, high = scorer.bounds(films["group"].to_numpy())
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
                | band_figures(
                    _bootstrap(films[some], config),
                    films["fracture_visible"][some],
                    films["bundle"][some],
                    low[some],
                    high[some],
                )
                for name, some in _all_and_groups(films, ages)
            ],
        },
    }


def _all_and_groups(
    films: pd.DataFrame, ages: AgeGroups
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield which films are of all, and of each age group, with its name."""
    yield "all", np.ones(len(films), bool)
    for index, name in enumerate(ages.names):
        yield name, films["group"].to_numpy() == index


def _calibration(
    films: pd.DataFrame, ages: AgeGroups, scorer: Scorer, config: EvaluationConfig
) -> dict[str, Any]:
    """Return how far the bundle's probabilities mean what they say, before and after its maps."""
    return {
        "method": config.calibration.method,
        "weights": list(scorer.calibrators.weights),
        "groups": [
            {"name": name}
            | before_and_after(
                _bootstrap(films[some], config),
                films["fracture_visible"][some],
                films["uncalibrated"][some],
                films["bundle"][some],
                config.calibration.bins,
            )
            for name, some in _all_and_groups(films, ages)
        ],
    }


def _routing(
    films: pd.DataFrame, ages: AgeGroups, scorer: Scorer, config: EvaluationConfig
) -> dict[str, Any]:
    by_group = routed(films, scorer)
    columns = {f"specialist_{group}": by_group[:, group] for group in range(len(ages))}
    return routing_figures(films.assign(**columns), ages, list(scorer.thresholds), config)


def _age_figures(films: pd.DataFrame, ages: AgeGroups, config: EvaluationConfig) -> dict[str, Any]:
    """Return how well the age group and, where it is estimated, the age is told from the film."""
    bootstrap = _bootstrap(films, config)
    group, seen = films["group"].to_numpy(), films["group_seen"].to_numpy()
    return {
        "accuracy": bootstrap.rate_interval(seen == group),
        "adjacent": bootstrap.rate_interval(abs(seen - group) <= 1),
        "f1": bootstrap.macro_f1_interval(group, seen),
        "confusion": confusion(group, seen, len(ages)),
        "names": ages.names,
        **({"mean_absolute_error": _age_error(films, bootstrap)} if "age_seen" in films else {}),
    }


def _age_error(films: pd.DataFrame, bootstrap: PatientBootstrap) -> Interval:
    """Return the mean absolute error of the estimated age in years, where the age is recorded."""
    known = films["age"].notna().to_numpy()
    errors = (films["age_seen"] - films["age"]).abs().to_numpy()
    return bootstrap.interval(bootstrap.ratio(np.where(known, errors, 0), known, scale="log"))


def _curves(films: pd.DataFrame, model: str, config: EvaluationConfig) -> dict[str, Any]:
    return roc_and_pr(
        _bootstrap(films, config), films["fracture_visible"], films[MODELS[model].score]
    )
