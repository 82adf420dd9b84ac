"""Drift: what has changed in a window of images since those that made the bundle, in words.

Tests and their correction; how a window is read (windows), the statistics (shifts) and the page
(drift_page) are elsewhere.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic_core import to_jsonable_python

from pedfrac.bundle.reference_profile import Profile
from pedfrac.config.monitoring import DriftConfig
from pedfrac.monitoring.performance import measured_performance, performance_tests
from pedfrac.monitoring.permutation_tests import (
    FEW,
    Statistic,
    balanced,
    chi_square,
    compare,
    energy_distance,
    kolmogorov_smirnov,
    quantile_bins,
    stability_index,
)
from pedfrac.monitoring.prevalence import estimated_prevalence
from pedfrac.monitoring.time_windows import Window
from pedfrac.monitoring.variables import (
    BY_NAME,
    CALLED,
    EMBEDDING,
    KINDS,
    LOOK,
    NUMBERS,
    RESAMPLES,
    SEEN_AGE,
    Findings,
    Pair,
    Variable,
    kinds_of,
)
from pedfrac.scoring.calibrators import fit_calibrator
from pedfrac.statistics.intervals import Floats, Interval, holm
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

SCHEMA_VERSION = 1
NO_SHIFT = 0.1  # standard deviations of a mean: a change of less is one of spread
HISTOGRAM = 24  # bins of a drawn distribution


def find_drift(profile: Profile, window: Window, config: DriftConfig) -> Findings:
    """Return all that was compared, and in ``drifted`` and ``said`` what has changed.

    A change is told where its p value, corrected by Holm's method for all that were looked at, is
    at most ``config.false_alarm_rate``, and where it is large enough to matter. So a window without
    any change is called changed at most so often, whatever depends on what.
    """
    found = _about(profile, window, config)
    if len(window.images) < config.fewest_images:
        said = (
            f"Too few images to tell: {len(window.images)}, and {config.fewest_images} are needed"
        )
        return found | {"said": said, "verdict": "too few images"}
    pair = Pair.of(profile, window, config)
    tests = decided(pair)
    drifted = [test for test in tests if test["drifted"]]
    words = [_in_words(test, drifted) for test in drifted]
    performance = measured_performance(pair)
    for test in tests:
        test["row"] = (performance or {}).get(test["name"]) or _described(pair, test)
    found |= {
        "verdict": "changed" if drifted else "no change found",
        "drifted": [test["name"] for test in drifted],
        "said": "; ".join(words) if words else "No change beyond chance, or none that matters",
        "tests": tests,
        "compared": {
            "images": int(pair.is_window.sum()),
            "patients": int(pair.images.loc[pair.is_window, "patient"].nunique()),
        },
        "prevalence": _prevalence(pair),
        "performance": performance,
        "distributions": {test["name"]: _distribution(pair, test["name"]) for test in drifted},
    }
    content: Findings = to_jsonable_python(found)  # as drift.json holds it
    return content


def decided(pair: Pair) -> list[Findings]:
    """Return all comparisons of two sides with ``p``, ``size`` and whether it is a change."""
    tests = [*_shifts(pair), *performance_tests(pair)]
    corrected = holm([test["p"] for test in tests])
    rules = pair.config
    for test, p in zip(tests, corrected, strict=True):
        test["least"] = rules.smallest_change if test["kind"] == "images" else rules.smallest_fall
        test["p_corrected"] = float(p)
        test["drifted"] = bool(p <= rules.false_alarm_rate and test["size"] >= test["least"])
    return tests


def _about(profile: Profile, window: Window, config: DriftConfig) -> Findings:
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": "",
        "drifted": [],
        "said": "",
        "tests": [],
        "reference": profile.about,
        "window": {
            "images": len(window.images),
            "patients": int(window.images["patient"].nunique()) if window.known else None,
            "labelled": int(window.images["fractured"].notna().sum()),
            "left_out": window.counts,
            "since": window.since,
            "until": window.until,
        },
        "rules": config.part(DriftConfig).model_dump(),
        "notes": list(_notes(profile, window)),
    }


def _notes(profile: Profile, window: Window) -> Iterator[str]:
    if not window.known:
        yield (
            "The patients of these images are not known. It is taken that a patient has as many "
            "images as in the reference; intervals of the window take each image for a patient, "
            "and are too narrow where that is wrong."
        )
    left = window.images["markers"] == "left" if "markers" in window.images else pd.Series([False])
    if left.any() and profile.about["markers"] != "off":
        yield (
            f"Side markers were left in {int(left.sum())} of {len(window.images)} images, but "
            "taken out of the reference's, which may look like a change."
        )
    if profile.features and window.images[profile.features].isna().any(axis=None):
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
        points = pair.images[pair.features].to_numpy(np.float64)
        distance = energy_distance(points)
        yield _compared(pair, LOOK, "energy distance", distance, distance)


def _compared(
    pair: Pair, variable: Variable, test: str, statistic: Statistic, size: Statistic
) -> Findings:
    found = compare(pair.images_of(variable), pair.has(variable), statistic, size)
    return {
        "name": variable.name,
        "title": variable.title,
        "kind": "images",
        "test": test,
        "within": pair.held_still(variable),
        **found,
        "words": _words(pair, variable),
    }


def _of_numbers(pair: Pair, variable: Variable) -> tuple[Statistic, Statistic]:
    has, values = pair.has(variable), pair.images[variable.name].to_numpy(np.float64)
    bins = quantile_bins(values[has], values[has & ~pair.is_window])
    return kolmogorov_smirnov(values[has]), stability_index(bins, *_sizes(pair, has))


def _of_kinds(pair: Pair, variable: Variable) -> tuple[Statistic, Statistic]:
    has = pair.has(variable)
    kinds = kinds_of(_common(pair, pair.images.loc[has, ["patient", variable.name]]))
    return chi_square(kinds), stability_index(kinds, *_sizes(pair, has))


def _common(pair: Pair, images: pd.DataFrame) -> pd.Series:
    """Return kinds of images, where patients are not known without the reference's rare ones.

    Both sides are drawn from the reference then, which cannot show how often what it hardly holds
    comes by chance: kinds that few of its patients have count as its most frequent one.
    """
    values = images.iloc[:, 1].astype(str)
    if pair.known:
        return values
    reference = ~pair.is_window[images.index]
    counts = images["patient"][reference].groupby(values[reference]).nunique()
    return values.where(values.isin(counts.index[counts >= FEW]), str(counts.idxmax()))


def _sizes(pair: Pair, has: NDArray[np.bool_]) -> tuple[int, int]:
    return int((has & pair.is_window).sum()), int((has & ~pair.is_window).sum())


def _words(pair: Pair, variable: Variable) -> str:
    """Return what has happened to a variable, were it a change."""
    has = pair.has(variable)
    if variable.name == EMBEDDING:
        return variable.more
    ours, theirs = pair.images_of(variable).seen(has)
    values = pair.images.loc[has, variable.name]
    if not variable.less:
        names = np.unique(values.to_numpy(str))
        gap = (ours - theirs)[0] @ kinds_of(values)
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
    images = [one["name"] for one in drifted if one["name"].startswith("image_")]
    if test["name"] == "probability" and images:
        way = "higher" if "more" in test["words"] else "lower"
        return f"{way} probabilities of a fracture, which changed images may make"
    return str(test["words"])


def _prevalence(pair: Pair) -> dict[str, Interval]:
    """Return the share of fractured images: of the reference as known, of the window estimated."""
    sides = [pair.images[some] for some in (~pair.is_window, pair.is_window)]
    reference, window = (
        PatientBootstrap(images["patient"], RESAMPLES, pair.config.seed) for images in sides
    )
    known = sides[0]["fractured"] == 1
    # what calibrates the bundle need not hit the mean, which training on balanced images moves
    calibrator = fit_calibrator(known, sides[0]["probability"], "beta")
    scores = calibrator(sides[1]["probability"])
    found = {
        "reference": reference.rate_interval(known),
        "window, estimated": estimated_prevalence(window, scores, float(known.mean())),
    }
    labels = sides[1]["fractured"]
    if labels.notna().any():
        found["window, labelled images"] = window.rate_interval(labels == 1, labels.notna())
    return found


def _described(pair: Pair, test: Findings) -> Findings | None:
    """Return what was seen on both sides of a comparison of images, and the change.

    Means of numbers; of kinds the share of that whose share has moved most. The change is that at
    the window's mix of what the comparison holds still.
    """
    variable = BY_NAME.get(test["name"])
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
    images = pair.images_of(variable)
    strata = images.stratum[has][:, None] == np.unique(images.stratum[has])
    inside = pair.is_window[has].astype(np.float32)

    def change(weights: Floats) -> Floats:
        counted = weights[:, has].astype(np.float32)
        ours, theirs = balanced(counted * inside, counted * (1 - inside), strata)
        return np.asarray((ours - theirs).astype(np.float64) @ values)

    moved = patients.interval(patients.any_metric(change, scale="plain"))
    counts = {f"{side}_images": int(some.sum()) for side, some in sides.items()}
    return {"of": of, **means, "change": moved, **counts}


def _values(pair: Pair, variable: Variable, has: NDArray[np.bool_]) -> tuple[Floats, str]:
    """Return numbers (k,), or 1 for images of the kind that has moved most, and its name."""
    values = pair.images.loc[has, variable.name]
    if variable in NUMBERS:
        return values.to_numpy(np.float64), ""
    ours, theirs = pair.images_of(variable).seen(has)
    kinds, names = kinds_of(values), np.unique(values.to_numpy(str))
    place = int(np.abs((ours - theirs)[0] @ kinds).argmax())
    return kinds[:, place].astype(np.float64), CALLED.get(names[place], str(names[place]))


def _distribution(pair: Pair, name: str) -> Findings | None:
    """Return the shares of images in bins or kinds, at the window's mix of what is held still."""
    variable = BY_NAME.get(name)
    if variable is None or variable is LOOK:
        return None
    has = pair.has(variable)
    ours, theirs = pair.images_of(variable).seen(has)
    values = pair.images.loc[has, variable.name]
    if variable in NUMBERS:
        numbers = values.to_numpy(np.float64)
        low, high = np.quantile(numbers, [0.005, 0.995])
        edges = np.linspace(low, high, HISTOGRAM + 1)
        place = np.searchsorted(edges[1:-1], numbers, side="right")
        kinds, labels = place[:, None] == np.arange(HISTOGRAM), edges.tolist()
    else:
        kinds, labels = kinds_of(values), np.unique(values.to_numpy(str)).tolist()
        labels = [CALLED.get(label, label) for label in labels]
    return {
        "title": variable.title,
        "labels": labels,
        "reference": (theirs[0] @ kinds).tolist(),
        "window": (ours[0] @ kinds).tolist(),
    }


def metrics_of(findings: Findings) -> dict[str, float | None]:
    """Return the metrics of findings by flat names, as a tracking server keeps them."""
    flat: dict[str, float | None] = {
        "drift.found": float(bool(findings["drifted"])),
        "drift.changes": float(len(findings["drifted"])),
        "drift.images": float(findings["window"]["images"]),
    }
    for test in findings["tests"]:
        flat |= {f"drift.{test['name']}.{part}": test[part] for part in ("size", "p_corrected")}
    for name, one in (findings.get("performance") or {}).items():
        flat[f"drift.{name}.value"] = one["window"]["value"]
    if prevalence := findings.get("prevalence"):
        flat["drift.prevalence"] = prevalence["window, estimated"]["value"]
    return flat
