"""Drift: what has changed in a window of films since those that made the bundle, in words.

Tests and their correction; how a window is read (windows), the statistics (shifts) and the page
(drift_page) are elsewhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pedfrac.calibration import calibration_error, equal_mass_bins, fit_calibrator
from pedfrac.config import MonitorConfig
from pedfrac.intervals import Estimate, Floats, Interval, holm, missing
from pedfrac.metrics import PatientBootstrap
from pedfrac.prevalence import estimated_prevalence
from pedfrac.reference_profile import Profile
from pedfrac.shifts import (
    FEW,
    Films,
    Statistic,
    balanced,
    chi_square,
    compare,
    energy_distance,
    kolmogorov_smirnov,
    quantile_bins,
    stability_index,
)
from pedfrac.windows import Window

SCHEMA_VERSION = 1
RESAMPLES = 1000  # of patients, behind the interval of the expected calibration error
CALIBRATION_BINS = 10
NO_SHIFT = 0.1  # standard deviations of a mean: a change of less is one of spread
FEWEST_PATIENTS = 10  # of each kind, to compare figures of performance
EMBEDDING = "embedding"
HISTOGRAM = 24  # bins of a drawn distribution

Findings = dict[str, Any]


@dataclass(frozen=True)
class Variable:
    """Something that is compared: its title, and what is said where it falls or rises.

    ``within``: columns whose mix may change without this being one; films are compared within each
    kind of them.
    """

    name: str
    title: str
    less: str = ""
    more: str = ""
    within: tuple[str, ...] = ()


WHO = ("age_group_used", "view")
WHAT = (*WHO, "fracture_called")
NUMBERS = (
    Variable("age", "Age in years", "younger children", "older children"),
    Variable("probability", "Probability of a fracture", "fewer fractures", "more fractures", WHO),
    Variable("film_brightness", "Brightness", "darker films", "brighter films", WHAT),
    Variable("film_contrast", "Contrast", "films of less contrast", "films of more contrast", WHAT),
    Variable(
        "film_background",
        "Background, share of the film",
        "less background around the wrist",
        "more background around the wrist",
        WHAT,
    ),
    Variable(
        "film_sharpness",
        "Sharpness",
        "blurred films, or of lower resolution",
        "sharper films",
        WHAT,
    ),
    Variable("film_noise", "Noise in grey levels of 255", "smoother films", "noisier films", WHAT),
    Variable(
        "film_long_side",
        "Long side in pixels",
        "films of fewer pixels",
        "films of more pixels",
        WHAT,
    ),
    Variable("film_aspect", "Width over height", "narrower films", "wider films", WHAT),
)
KINDS = (
    Variable("sex", "Sex", more="more {}"),
    Variable("laterality", "Side", more="more {} wrists"),
    Variable("view", "View", more="more {} views"),
)
SEEN_AGE = Variable("age_group_seen", "Age group as the film shows it", more="more that look {}")
LOOK = Variable(
    EMBEDDING, "What the network sees", more="films that the network sees otherwise", within=WHAT
)
CALLED = {"M": "boys", "F": "girls", "O": "of other sex", "L": "left", "R": "right"}


@dataclass(frozen=True, eq=False)
class Pair:
    """Films of reference and window in one table, reference first, with ``is_window`` (n,)."""

    films: pd.DataFrame
    is_window: NDArray[np.bool_]
    known: bool
    features: list[str]
    config: MonitorConfig

    @classmethod
    def of(cls, profile: Profile, window: Window, config: MonitorConfig) -> "Pair":
        """Join a profile and a window, of which whole patients are left out where it is large."""
        chosen = _thinned(window.films, config)
        features = profile.features
        if features and chosen[features].isna().any(axis=None):
            features = []
        columns = [*profile.films.columns]
        films = pd.concat(
            [profile.films, chosen.reindex(columns=columns).astype({"fractured": float})],
            ignore_index=True,
        )
        is_window = np.arange(len(films)) >= len(profile.films)
        films["patient"] += np.where(is_window, profile.films["patient"].max() + 1, 0)
        films["fracture_called"] = films["probability"] >= films["threshold"]
        if films.loc[is_window, "age"].isna().mean() > 0.5:
            films["age_group_used"] = films["age_group_seen"]  # alike on both sides
        return cls(films, is_window, window.known, features, config)

    def bootstrap(self) -> PatientBootstrap:
        """Return the patients of all films, from whom intervals are made."""
        return PatientBootstrap(self.films["patient"], RESAMPLES, self.config.seed)

    def films_of(self, variable: Variable) -> Films:
        """Return the films as a comparison of a variable needs them."""
        stratum = np.zeros(len(self.films), np.int64)
        if within := self.held_still(variable):
            stratum = self.films.groupby(within, sort=False).ngroup().to_numpy().astype(np.int64)
        patient = self.films["patient"].to_numpy(np.int64)
        return Films(
            self.is_window, patient, stratum, self.known, self.config.draws, self.config.seed
        )

    def held_still(self, variable: Variable) -> list[str]:
        """Return within which columns a variable is compared: those that most films tell."""
        told = [(self.films.loc[self.is_window, name] != "").mean() for name in variable.within]
        return [name for name, share in zip(variable.within, told, strict=True) if share > 0.5]

    def has(self, variable: Variable) -> NDArray[np.bool_]:
        """Return of which films a variable is known, (n,)."""
        if variable.name == EMBEDDING:
            return np.full(len(self.films), bool(self.features))
        values = self.films[variable.name]
        return (values.notna() & (values.astype(str) != "")).to_numpy()

    def is_known(self, variable: Variable) -> bool:
        """Return whether enough films on both sides have a variable."""
        has = self.has(variable)
        least = min(has[self.is_window].sum(), has[~self.is_window].sum())
        return bool(least >= self.config.fewest_films)


def find_drift(profile: Profile, window: Window, config: MonitorConfig) -> Findings:
    """Return all that was compared, and in ``drifted`` and ``said`` what has changed.

    A change is told where its p value, corrected by Holm's method for all that were looked at, is
    at most ``config.false_alarm_rate``, and where it is large enough to matter. So a window without
    any change is called changed at most so often, whatever depends on what.
    """
    found = _about(profile, window, config)
    if len(window.films) < config.fewest_films:
        said = f"Too few films to tell: {len(window.films)}, and {config.fewest_films} are needed"
        return found | {"said": said, "verdict": "too few films"}
    pair = Pair.of(profile, window, config)
    tests = decided(pair)
    drifted = [test for test in tests if test["drifted"]]
    words = [_in_words(test, drifted) for test in drifted]
    performance = _performance(pair)
    for test in tests:
        test["row"] = (performance or {}).get(test["name"]) or _described(pair, test)
    return found | {
        "verdict": "changed" if drifted else "no change found",
        "drifted": [test["name"] for test in drifted],
        "said": "; ".join(words) if words else "No change beyond chance, or none that matters",
        "tests": tests,
        "compared": {
            "films": int(pair.is_window.sum()),
            "patients": int(pair.films.loc[pair.is_window, "patient"].nunique()),
        },
        "prevalence": _prevalence(pair),
        "performance": performance,
        "distributions": {test["name"]: _distribution(pair, test["name"]) for test in drifted},
    }


def decided(pair: Pair) -> list[Findings]:
    """Return all comparisons of two sides with ``p``, ``size`` and whether it is a change."""
    tests = [*_shifts(pair), *_performance_tests(pair)]
    corrected = holm([test["p"] for test in tests])
    rules = pair.config
    for test, p in zip(tests, corrected, strict=True):
        test["least"] = rules.smallest_change if test["kind"] == "films" else rules.smallest_fall
        test["p_corrected"] = float(p)
        test["drifted"] = bool(p <= rules.false_alarm_rate and test["size"] >= test["least"])
    return tests


def _about(profile: Profile, window: Window, config: MonitorConfig) -> Findings:
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": "",
        "drifted": [],
        "said": "",
        "tests": [],
        "reference": profile.about,
        "window": {
            "films": len(window.films),
            "patients": int(window.films["patient"].nunique()) if window.known else None,
            "labelled": int(window.films["fractured"].notna().sum()),
            "left_out": window.counts,
            "since": window.since,
            "until": window.until,
        },
        "rules": config.model_dump(
            include={
                *("false_alarm_rate", "smallest_change", "smallest_fall", "draws"),
                *("fewest_films", "most_films", "seed"),
            }
        ),
        "notes": list(_notes(profile, window)),
    }


def _notes(profile: Profile, window: Window) -> Iterator[str]:
    if not window.known:
        yield (
            "The patients of these films are not known. It is taken that a patient has as many "
            "films as in the reference; intervals of the window take each film for a patient, and "
            "are too narrow where that is wrong."
        )
    left = window.films["markers"] == "left" if "markers" in window.films else pd.Series([False])
    if left.any() and profile.about["markers"] != "off":
        yield (
            f"Side markers were left in {int(left.sum())} of {len(window.films)} films, but taken "
            "out of the reference's, which may look like a change."
        )
    if profile.features and window.films[profile.features].isna().any(axis=None):
        yield "What the network sees is not compared: some scores hold no features."


def _shifts(pair: Pair) -> Iterator[Findings]:
    """Yield the comparisons of what needs no labels."""
    numbers = [one for one in NUMBERS if pair.is_known(one)]
    kinds = [one for one in KINDS if pair.is_known(one)]
    if NUMBERS[0] not in numbers:
        kinds.append(SEEN_AGE)
    for variable in numbers:
        yield _compared(pair, variable, "Kolmogorov-Smirnov", *_of_numbers(pair, variable))
    for variable in kinds:
        yield _compared(pair, variable, "chi-square", *_of_kinds(pair, variable))
    if pair.features:
        points = pair.films[pair.features].to_numpy(np.float64)
        distance = energy_distance(points)
        yield _compared(pair, LOOK, "energy distance", distance, distance)


def _compared(
    pair: Pair, variable: Variable, test: str, statistic: Statistic, size: Statistic
) -> Findings:
    found = compare(pair.films_of(variable), pair.has(variable), statistic, size)
    return {
        "name": variable.name,
        "title": variable.title,
        "kind": "films",
        "test": test,
        "within": pair.held_still(variable),
        **found,
        "words": _words(pair, variable),
    }


def _of_numbers(pair: Pair, variable: Variable) -> tuple[Statistic, Statistic]:
    has, values = pair.has(variable), pair.films[variable.name].to_numpy(np.float64)
    bins = quantile_bins(values[has], values[has & ~pair.is_window])
    return kolmogorov_smirnov(values[has]), stability_index(bins, *_sizes(pair, has))


def _of_kinds(pair: Pair, variable: Variable) -> tuple[Statistic, Statistic]:
    has = pair.has(variable)
    kinds = _kinds(_common(pair, pair.films.loc[has, ["patient", variable.name]]))
    return chi_square(kinds), stability_index(kinds, *_sizes(pair, has))


def _common(pair: Pair, films: pd.DataFrame) -> pd.Series:
    """Return kinds of films, where patients are not known without the reference's rare ones.

    Both sides are drawn from the reference then, which cannot show how often what it hardly holds
    comes by chance: kinds that few of its patients have count as its most frequent one.
    """
    values = films.iloc[:, 1].astype(str)
    if pair.known:
        return values
    reference = ~pair.is_window[films.index]
    counts = films["patient"][reference].groupby(values[reference]).nunique()
    return values.where(values.isin(counts.index[counts >= FEW]), str(counts.idxmax()))


def _sizes(pair: Pair, has: NDArray[np.bool_]) -> tuple[int, int]:
    return int((has & pair.is_window).sum()), int((has & ~pair.is_window).sum())


def _kinds(values: pd.Series) -> NDArray[np.bool_]:
    return values.to_numpy(str)[:, None] == np.unique(values.to_numpy(str))


def _words(pair: Pair, variable: Variable) -> str:
    """Return what has happened to a variable, were it a change."""
    has = pair.has(variable)
    if variable.name == EMBEDDING:
        return variable.more
    ours, theirs = pair.films_of(variable).seen(has)
    values = pair.films.loc[has, variable.name]
    if not variable.less:
        names = np.unique(values.to_numpy(str))
        gap = (ours - theirs)[0] @ _kinds(values)
        name = str(names[gap.argmax()])
        return variable.more.format(CALLED.get(name, name))
    numbers = values.to_numpy(np.float64)
    spread = numbers[~pair.is_window[has]].std() or 1.0
    change = float(((ours - theirs)[0] @ numbers) / spread)
    if abs(change) < NO_SHIFT:
        return f"{variable.title[:1].lower()}{variable.title[1:]} spread otherwise"
    return variable.more if change > 0 else variable.less


def _in_words(test: Findings, drifted: Sequence[Findings]) -> str:
    """Return what has changed; of scores, what may have moved them."""
    films = [one["name"] for one in drifted if one["name"].startswith("film_")]
    if test["name"] == "probability" and films:
        way = "higher" if "more" in test["words"] else "lower"
        return f"{way} probabilities of a fracture, which changed films may make"
    return str(test["words"])


def _performance_tests(pair: Pair) -> Iterator[Findings]:
    """Yield the falls of figures that need labels, where there are enough of them."""
    labelled = pair.films["fractured"].notna().to_numpy()
    ours, theirs = labelled & pair.is_window, labelled & ~pair.is_window
    if any(_too_few(pair, some) for some in (ours, theirs)):
        return
    patients = pair.bootstrap()
    for name, (title, said, estimate) in _FIGURES.items():
        first, second = (estimate(patients, pair, some) for some in (ours, theirs))
        change = patients.contrast(first, second)
        if change["value"] is None or change["p"] is None:
            continue
        rise = change["value"]
        worse = abs(rise) if name == "calibration" else -rise
        yield {
            "name": name,
            "title": title,
            "kind": "labels",
            "test": "t over patients",
            "within": [],
            "p": change["p"],
            "size": max(0.0, float(worse)),
            "words": said[rise > 0] if isinstance(said, tuple) else said,
        }


def _too_few(pair: Pair, some: NDArray[np.bool_]) -> bool:
    films = pair.films[some]
    counts = [films.loc[films["fractured"] == kind, "patient"].nunique() for kind in (True, False)]
    return min(counts) < FEWEST_PATIENTS


def _auroc(patients: PatientBootstrap, pair: Pair, some: NDArray[np.bool_]) -> Estimate:
    return patients.area(_truth(pair), pair.films["probability"], some)


def _sensitivity(patients: PatientBootstrap, pair: Pair, some: NDArray[np.bool_]) -> Estimate:
    return patients.rate(pair.films["fracture_called"], some & _truth(pair))


def _specificity(patients: PatientBootstrap, pair: Pair, some: NDArray[np.bool_]) -> Estimate:
    return patients.rate(~pair.films["fracture_called"], some & ~_truth(pair))


def _calibration(patients: PatientBootstrap, pair: Pair, some: NDArray[np.bool_]) -> Estimate:
    """Return by how much more films are fractured than their probabilities say."""
    gaps = np.where(some, _truth(pair) - pair.films["probability"].to_numpy(), 0)
    return patients.ratio(gaps, some, scale="plain")


_FIGURES: dict[str, tuple[str, Any, Any]] = {
    "auroc": ("AUROC", "fractured and normal films are told apart less well", _auroc),
    "sensitivity": ("Sensitivity", "more fractured films are missed", _sensitivity),
    "specificity": ("Specificity", "more normal films are called fractured", _specificity),
    "calibration": (
        "Fractured films less those expected",
        ("probabilities have become too high", "probabilities have become too low"),
        _calibration,
    ),
}


def _truth(pair: Pair) -> NDArray[np.bool_]:
    return (pair.films["fractured"] == 1).to_numpy()


def _performance(pair: Pair) -> Findings | None:
    """Return figures of labelled films, of the window, the reference, and their difference."""
    labelled = pair.films["fractured"].notna().to_numpy()
    if not (labelled & pair.is_window).any():
        return None
    patients = pair.bootstrap()
    sides = {"window": labelled & pair.is_window, "reference": labelled & ~pair.is_window}
    found: Findings = {}
    for name, (title, _, estimate) in _FIGURES.items():
        parts = [estimate(patients, pair, some) for some in sides.values()]
        row = {side: patients.interval(one) for side, one in zip(sides, parts, strict=True)}
        found[name] = {"title": title, **row, "change": patients.contrast(*parts)}
    found["ece"] = {
        "title": "Expected calibration error",
        **{side: _ece(pair, some) for side, some in sides.items()},
        "change": missing("not compared: chance alone makes it larger in fewer films"),
    }
    return found


def _ece(pair: Pair, some: NDArray[np.bool_]) -> Interval:
    films = pair.films[some]
    patients = PatientBootstrap(films["patient"], RESAMPLES, pair.config.seed)
    scores = films["probability"].to_numpy(np.float64)
    bins = equal_mass_bins(scores, CALIBRATION_BINS)
    return calibration_error(patients, films["fractured"] == 1, scores, bins)


def _prevalence(pair: Pair) -> dict[str, Interval]:
    """Return the share of fractured films: of the reference as known, of the window estimated."""
    sides = [pair.films[some] for some in (~pair.is_window, pair.is_window)]
    reference, window = (
        PatientBootstrap(films["patient"], RESAMPLES, pair.config.seed) for films in sides
    )
    known = sides[0]["fractured"] == 1
    # what calibrates the bundle need not hit the mean, which training on balanced films moves
    calibrator = fit_calibrator(known, sides[0]["probability"], "beta")
    scores = calibrator(sides[1]["probability"])
    found = {
        "reference": reference.rate_interval(known),
        "window, estimated": estimated_prevalence(window, scores, float(known.mean())),
    }
    labels = sides[1]["fractured"]
    if labels.notna().any():
        found["window, labelled films"] = window.rate_interval(labels == 1, labels.notna())
    return found


def _described(pair: Pair, test: Findings) -> Findings | None:
    """Return what was seen on both sides of a comparison of films, and the change.

    Means of numbers; of kinds the share of that whose share has moved most. The change is that at
    the window's mix of what the comparison holds still.
    """
    variable = _BY_NAME.get(test["name"])
    if variable is None or variable is LOOK:
        return None
    has, patients = pair.has(variable), pair.bootstrap()
    values, of = _values(pair, variable, has)
    sides = {"reference": has & ~pair.is_window, "window": has & pair.is_window}
    everyone = np.zeros(len(has))
    everyone[has] = values
    means = {
        side: patients.interval(patients.ratio(everyone * some, some, scale="plain"))
        for side, some in sides.items()
    }
    films = pair.films_of(variable)
    strata = films.stratum[has][:, None] == np.unique(films.stratum[has])
    inside = pair.is_window[has].astype(np.float32)

    def change(weights: Floats) -> Floats:
        counted = weights[:, has].astype(np.float32)
        ours, theirs = balanced(counted * inside, counted * (1 - inside), strata)
        return np.asarray((ours - theirs).astype(np.float64) @ values)

    moved = patients.interval(patients.any_figure(change, scale="plain"))
    counts = {f"{side}_films": int(some.sum()) for side, some in sides.items()}
    return {"of": of, **means, "change": moved, **counts}


def _values(pair: Pair, variable: Variable, has: NDArray[np.bool_]) -> tuple[Floats, str]:
    """Return numbers (k,), or 1 for films of the kind that has moved most, and its name."""
    values = pair.films.loc[has, variable.name]
    if variable in NUMBERS:
        return values.to_numpy(np.float64), ""
    ours, theirs = pair.films_of(variable).seen(has)
    kinds, names = _kinds(values), np.unique(values.to_numpy(str))
    place = int(np.abs((ours - theirs)[0] @ kinds).argmax())
    return kinds[:, place].astype(np.float64), CALLED.get(names[place], str(names[place]))


def _distribution(pair: Pair, name: str) -> Findings | None:
    """Return the shares of films in bins or kinds, at the window's mix of what is held still."""
    variable = _BY_NAME.get(name)
    if variable is None or variable is LOOK:
        return None
    has = pair.has(variable)
    ours, theirs = pair.films_of(variable).seen(has)
    values = pair.films.loc[has, variable.name]
    if variable in NUMBERS:
        numbers = values.to_numpy(np.float64)
        low, high = np.quantile(numbers, [0.005, 0.995])
        edges = np.linspace(low, high, HISTOGRAM + 1)
        place = np.searchsorted(edges[1:-1], numbers, side="right")
        kinds, labels = place[:, None] == np.arange(HISTOGRAM), edges.tolist()
    else:
        kinds, labels = _kinds(values), np.unique(values.to_numpy(str)).tolist()
        labels = [CALLED.get(label, label) for label in labels]
    return {
        "title": variable.title,
        "labels": labels,
        "reference": (theirs[0] @ kinds).tolist(),
        "window": (ours[0] @ kinds).tolist(),
    }


def _thinned(films: pd.DataFrame, config: MonitorConfig) -> pd.DataFrame:
    """Return films of whole patients in random order, at most as many as are compared."""
    random = np.random.default_rng(config.seed)
    patients = random.permutation(films["patient"].unique())
    counts = films["patient"].value_counts()[patients].cumsum()
    return films[films["patient"].isin(patients[counts <= max(config.most_films, counts.iloc[0])])]


_BY_NAME: Mapping[str, Variable] = {one.name: one for one in (*NUMBERS, *KINDS, SEEN_AGE, LOOK)}


def figures_of(findings: Findings) -> dict[str, float | None]:
    """Return the figures of findings by flat names, as a tracking server keeps them."""
    flat: dict[str, float | None] = {
        "drift.found": float(bool(findings["drifted"])),
        "drift.changes": float(len(findings["drifted"])),
        "drift.films": float(findings["window"]["films"]),
    }
    for test in findings["tests"]:
        flat |= {f"drift.{test['name']}.{part}": test[part] for part in ("size", "p_corrected")}
    for name, one in (findings.get("performance") or {}).items():
        flat[f"drift.{name}.value"] = one["window"]["value"]
    if prevalence := findings.get("prevalence"):
        flat["drift.prevalence"] = prevalence["window, estimated"]["value"]
    return flat
