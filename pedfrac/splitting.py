"""Splitting: which patients test, train and validate, proven disjoint.

Not here: exclusions (cohort) and age groups of the models; a patient is placed once, for all ages.
"""

import csv
import hashlib
import logging
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pedfrac.ages import AgeGroups
from pedfrac.cohort import count_films
from pedfrac.config import SplitConfig
from pedfrac.errors import PedfracError
from pedfrac.records import read_table, write_table
from pedfrac.storage import write_json

logger = logging.getLogger(__name__)

PARTS = ("train", "validation", "test", "left_out")
PLACES = PARTS[:3]

# Reasons why a film is left out; they are the keys of the counts in the report.
TEST_PATIENT = "patient is in the test set"
BALANCED = "balanced pairs"
NOT_NAMED = "not named in the split file"
NO_PLACE = "patient had no part in the previous split"

FILE_PARTS = {
    "train": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
SPLIT_TYPES: dict[str, Any] = {
    "filestem": "str",
    "patient_id": "int64",
    "part": "str",
    "reason": "str",
    "place": "str",
    "fold": "int64",
}

SplitReport = dict[str, Any]


@dataclass(frozen=True)
class Split:
    """A part for every film. It cannot be made where two parts share a patient.

    ``table``, sorted by filestem: filestem, patient_id, ``part`` (one of PARTS), ``reason`` (why
    left out, else ""), ``place`` (the part that the patient belongs to, or "": so that a patient
    whose films are all left out keeps it in the next split) and ``fold`` (-1: no fold).
    Raises PedfracError that names the patients and films at fault.
    """

    table: pd.DataFrame

    def __post_init__(self) -> None:
        missing = {"filestem", "patient_id", "part"} - set(self.table.columns)
        if missing:
            raise PedfracError(f"split: column {', '.join(sorted(missing))} is missing")
        _refuse_unknown_parts(self.table)
        _refuse_repeated_films(self.table)
        _refuse_shared_patients(self.table)

    def films(self, part: str) -> list[str]:
        """Return the filestems of a part, sorted."""
        if part not in PARTS:
            raise PedfracError(f"part {part!r} must be one of {', '.join(PARTS)}")
        return sorted(self.table.loc[self.table["part"] == part, "filestem"])


def make_split(
    cohort: pd.DataFrame,
    config: SplitConfig,
    ages: AgeGroups,
    previous: pd.DataFrame | None = None,
) -> tuple[Split, SplitReport]:
    """Place every patient of a cohort, by rule or by ``config.file``; return split and report.

    ``cohort``: filestem, patient_id, age (years), fracture_visible; the order of rows is of no
    account, the same films and seed give the same split. ``previous``, an earlier ``Split.table``,
    keeps each of its patients where it was; without it a new patient may displace a few others,
    since a test set of fixed size depends on who else is there. A split file overrules both.
    Folds count where one is chosen; those held out in turn are cut from this split (``cut_fold``).
    Raises PedfracError where training or validation would be empty or a patient be shared.
    """
    config = config.of_the_bundle
    films = _prepare(cohort, config, ages)
    report: SplitReport = {"source": "file" if config.file else "rule"}
    if config.file:
        report["file"] = _place_by_file(films, Path(config.file))
    else:
        report["previous"] = _keep_previous(films, config, previous)
        report["test_intervals"] = _draw_test(films, config)
        _place_others(films, config)
        if previous is not None:
            report["previous"] |= {"moved_patients": _count_moved(films, previous)}
    if config.balance_training:
        _balance_training(films)
    split = Split(films[list(SPLIT_TYPES)].astype(SPLIT_TYPES).reset_index(drop=True))
    _refuse_empty(split, config)
    return split, report | _describe(films, split, ages)


def cut_fold(
    split: Split, cohort: pd.DataFrame, config: SplitConfig, ages: AgeGroups, fold: int
) -> tuple[Split, SplitReport]:
    """Hold out one of ``config.folds`` of a split's training and validation patients.

    The patients are dealt into folds by age group and fracture, alike for every ``fold``. Those of
    this one become the part ``test``, and of the others ``config.validation_fraction`` validate,
    so that no held-out film has trained, stopped, chosen or calibrated a network of the fold. The
    test set of ``split`` stays out, and so does what it left out but for balance.
    Raises PedfracError where a part would be empty.
    """
    folds = config.folds or 0
    films = _prepare(cohort, config, ages)
    _take_others(films, split)
    pool = films[films["part"] == ""].sort_values(["validation_draw", "patient_id"])
    patients = pool.groupby("patient_id", sort=False).agg(
        group=("group", "min"), fracture=("fracture_visible", "any")
    )
    patients = patients.assign(place="", fold=-1)
    _deal_folds(patients, folds)
    others = patients[patients["fold"] != fold].copy()
    _draw_validation(others, config.validation_fraction)
    patients["place"] = others["place"].reindex(patients.index, fill_value="test")
    _take_places(films, patients)
    if config.balance_training:
        _balance_training(films)
    made = Split(films[list(SPLIT_TYPES)].astype(SPLIT_TYPES).reset_index(drop=True))
    if not all(made.films(part) for part in PLACES):
        raise PedfracError(
            f"split: {len(patients)} patients cannot be cut into {folds} folds, each with patients "
            "to train, to validate and to hold out; lower split.folds"
        )
    return made, {"source": "fold", "fold": fold} | _describe(films, made, ages)


def _take_others(films: pd.DataFrame, split: Split) -> None:
    """Leave out the films that a split tests or leaves out, but for balance."""
    table = split.table.set_index("filestem").reindex(films["filestem"])
    part, reason = table["part"].to_numpy(), table["reason"].to_numpy()
    out = (part == "left_out") & (reason != BALANCED)
    films.loc[out, ["part", "reason"]] = np.stack([part[out], reason[out]], axis=1)
    _leave_out(films, part == "test", TEST_PATIENT)


def _take_places(films: pd.DataFrame, patients: pd.DataFrame) -> None:
    """Give the films without a part that of their patient, and all films their patient's fold."""
    films["fold"] = films["patient_id"].map(patients["fold"]).fillna(-1).astype("int64")
    rest = films["part"] == ""
    films.loc[rest, "place"] = films.loc[rest, "patient_id"].map(patients["place"])
    films.loc[rest, "part"] = films.loc[rest, "place"]


def save_split(split: Split, report: SplitReport, folder: Path) -> None:
    """Write split.csv and split.json; equal splits give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    write_table(split.table, folder / "split.csv")
    write_json(folder / "split.json", report)


def load_split(folder: Path) -> Split:
    """Return the split that ``save_split`` wrote; its patients are proven disjoint again."""
    return Split(read_split_table(folder / "split.csv"))


def read_split_table(path: Path) -> pd.DataFrame:
    """Read a split.csv, such as the previous split's. Raises PedfracError where it is none."""
    table = read_table(path, SPLIT_TYPES)
    if missing := [name for name in SPLIT_TYPES if name not in table.columns]:
        raise PedfracError(f"{path}: column {', '.join(missing)} is missing; is it a split.csv?")
    return table


def read_split_file(path: Path) -> pd.DataFrame:
    """Read a split made elsewhere: columns filestem and split (train, valid or val, test).

    Returns filestem and part (train, validation, test). Raises PedfracError that names the file,
    the line, the value and what is allowed, or the patients that two parts share.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = {"filestem", "split"} - set(reader.fieldnames or ())
            if missing:
                raise PedfracError(
                    f"{path}: column {' and '.join(sorted(missing))} is missing; "
                    "it must hold the columns filestem and split"
                )
            named = dict(_named_parts(path, reader))
    except OSError as error:
        raise PedfracError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise PedfracError(f"{path}: is not a CSV in UTF-8 ({error})") from None
    if not named:
        raise PedfracError(f"{path}: names no film")
    table = pd.DataFrame({"filestem": list(named), "part": list(named.values())}, dtype="str")
    _refuse_shared_stems(table, path)
    return table


def _named_parts(path: Path, reader: csv.DictReader) -> Iterable[tuple[str, str]]:
    lines: dict[str, int] = {}
    for row in reader:
        stem, part = row["filestem"] or "", row["split"] or ""
        where = f"{path}, line {reader.line_num}"
        if not stem:
            raise PedfracError(f"{where}: the filestem is empty")
        if part not in FILE_PARTS:
            raise PedfracError(f"{where}: split {part!r} must be one of {', '.join(FILE_PARTS)}")
        if stem in lines:
            raise PedfracError(f"{where}: {stem} is named on line {lines[stem]} already")
        lines[stem] = reader.line_num
        yield stem, FILE_PARTS[part]


# ---- the law of the split ---------------------------------------------------------------------


def _refuse_unknown_parts(table: pd.DataFrame) -> None:
    unknown = table[~table["part"].isin(PARTS)]
    if len(unknown):
        raise PedfracError(
            f"split: part {unknown['part'].iloc[0]!r} of {unknown['filestem'].iloc[0]} "
            f"must be one of {', '.join(PARTS)}"
        )


def _refuse_repeated_films(table: pd.DataFrame) -> None:
    repeated = table.loc[table["filestem"].duplicated(), "filestem"].unique()
    if len(repeated):
        raise PedfracError(
            f"split: {len(repeated)} films are named more than once: {', '.join(repeated[:5])}"
        )


def _refuse_shared_patients(table: pd.DataFrame) -> None:
    used = table[table["part"] != "left_out"]
    parts = used.groupby("patient_id")["part"].nunique()
    shared = sorted(parts.index[parts > 1])
    if shared:
        few = used[used["patient_id"].isin(shared[:3])]
        named = ", ".join(
            f"{stem} of patient {patient} in {part}"
            for stem, patient, part in zip(
                few["filestem"], few["patient_id"], few["part"], strict=True
            )
        )
        raise PedfracError(
            f"split: {len(shared)} patients are in more than one part, such as: {named}"
        )


def _refuse_empty(split: Split, config: SplitConfig) -> None:
    for part in ("train", "validation"):
        if not split.films(part):
            advice = f"look at {config.file}" if config.file else "lower split.test_per_year"
            raise PedfracError(
                f"split: no film is left for {part} "
                f"({len(split.films('test'))} of {len(split.table)} films test); {advice}"
            )
    if not split.films("test"):
        logger.warning("the test set is empty")


# ---- films in a fixed order -------------------------------------------------------------------


def _prepare(cohort: pd.DataFrame, config: SplitConfig, ages: AgeGroups) -> pd.DataFrame:
    """Return the films sorted by filestem, with year of age, stable draws, and no place yet."""
    films = cohort[["filestem", "patient_id", "age", "fracture_visible"]]
    films = films.sort_values("filestem", ignore_index=True)
    films["fracture_visible"] = films["fracture_visible"].astype(bool)
    films["group"] = ages.assign(films["age"])
    outside = films.loc[films["group"] < 0, "filestem"]
    if len(outside):
        raise PedfracError(
            f"split: {len(outside)} films lie outside the ages {ages.bounds[0]:g} to "
            f"{ages.bounds[-1]:g}, such as {outside.iloc[0]}; make the cohort with these bounds"
        )
    films["year"] = _years(films["age"], ages)
    # Two draws: who was not drawn for the test set must not be first to validate.
    for purpose in ("test", "validation"):
        draws = {p: _draw(config.seed, purpose, p) for p in films["patient_id"].unique()}
        films[f"{purpose}_draw"] = films["patient_id"].map(draws)
    films["film_draw"] = [_draw(config.seed, "film", stem) for stem in films["filestem"]]
    return films.assign(part="", reason="", place="", fold=-1)


def _years(age: pd.Series, ages: AgeGroups) -> pd.Series:
    """Return the 1-year interval [k, k+1) of each age; the last bound belongs to the last one."""
    return np.floor(age).clip(upper=math.ceil(ages.bounds[-1]) - 1).astype("int64")


def _draw(seed: int, purpose: str, name: object) -> int:
    """Return a number that depends on nothing but its arguments, on any machine."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{name}".encode()).digest()
    return int.from_bytes(digest[:7], "big")  # fits an int64


# ---- what an earlier split has decided --------------------------------------------------------


def _keep_previous(
    films: pd.DataFrame, config: SplitConfig, previous: pd.DataFrame | None
) -> dict[str, Any] | None:
    """Give the patients of an earlier split their old place, and its test films their part."""
    if previous is None:
        return None
    Split(previous)
    places, folds = _patient_places(previous), _patient_folds(previous, config)
    known = films["patient_id"].isin(places.index)
    films["place"] = films["patient_id"].map(places).fillna("").astype("str")
    if config.folds:
        films["fold"] = films["patient_id"].map(folds).fillna(-1).astype("int64")
        # The fold decides who validates; patients of a split without folds are dealt like new ones.
        films.loc[films["place"].isin(("train", "validation")), "place"] = "by fold"
    tests = previous.loc[previous["part"] == "test", "filestem"]
    films.loc[films["filestem"].isin(tests), "part"] = "test"
    _leave_out(films, known & (films["place"] == "test") & (films["part"] == ""), TEST_PATIENT)
    _leave_out(films, known & (films["place"] == ""), NO_PLACE)
    return {
        "kept_patients": int(films.loc[known, "patient_id"].nunique()),
        "new_patients": int(films.loc[~known, "patient_id"].nunique()),
        "vanished_patients": len(set(places.index) - set(films["patient_id"])),
        "vanished_films": len(set(previous["filestem"]) - set(films["filestem"])),
        "vanished_test_films": len(set(tests) - set(films["filestem"])),
    }


def _patient_places(previous: pd.DataFrame) -> pd.Series:
    """Return the place of each patient of a split: its films' part, or what is written there."""
    used = previous[previous["part"] != "left_out"].drop_duplicates("patient_id")
    places = pd.Series("", index=previous["patient_id"].unique(), dtype="str")
    if "place" in previous:
        places.update(previous.drop_duplicates("patient_id").set_index("patient_id")["place"])
    places.update(used.set_index("patient_id")["part"])
    return places


def _count_moved(films: pd.DataFrame, previous: pd.DataFrame) -> int:
    """Count the patients who are elsewhere than before: none, unless another fold validates."""
    before = films["patient_id"].map(_patient_places(previous))
    return int(films.loc[before.notna() & (before != films["place"]), "patient_id"].nunique())


def _patient_folds(previous: pd.DataFrame, config: SplitConfig) -> pd.Series:
    if "fold" not in previous:
        return pd.Series(dtype="int64")
    dealt = previous[previous["fold"] >= 0].drop_duplicates("patient_id")
    folds = dealt.set_index("patient_id")["fold"]
    if config.folds and len(folds) and folds.max() >= config.folds:
        raise PedfracError(
            f"split: the previous split has {folds.max() + 1} folds, but split.folds is "
            f"{config.folds}; use the same number, or split.previous: none"
        )
    return folds


def _leave_out(films: pd.DataFrame, which: pd.Series | np.ndarray, reason: str) -> None:
    films.loc[which, "part"] = "left_out"
    films.loc[which, "reason"] = reason


# ---- the test set -----------------------------------------------------------------------------


def _draw_test(films: pd.DataFrame, config: SplitConfig) -> dict[str, Any]:
    """Fill each year of age with pairs of a fractured and a normal film, youngest year first."""
    per_patient = Counter(films.loc[films["part"] == "test", "patient_id"])
    fresh = films[(films["place"] == "") & (films["part"] == "")]
    years = dict(iter(fresh.groupby("year")))
    kept = films[films["part"] == "test"].groupby(["year", "fracture_visible"]).size().to_dict()
    chosen: list[int] = []
    unfilled = []
    for year in sorted(films["year"].unique()):
        have = {label: int(kept.get((year, label), 0)) for label in (True, False)}
        pools = _pools(years.get(year, fresh.iloc[:0]), per_patient, config)
        available = {label: len(set(pool["patient_id"])) for label, pool in pools.items()}
        drawn = _fill_year(pools, have, available, per_patient, config)
        chosen.extend(drawn)
        if min(have.values()) < config.test_per_year:
            unfilled.append(_unfilled(int(year), have, available, config))
    films.loc[chosen, "part"] = "test"
    testing = films["patient_id"].isin(films.loc[chosen, "patient_id"])
    films.loc[testing, "place"] = "test"
    _leave_out(films, testing & (films["part"] == ""), TEST_PATIENT)
    return {"pairs_wanted": config.test_per_year, "unfilled": unfilled}


def _unfilled(
    year: int, have: dict[bool, int], available: dict[bool, int], config: SplitConfig
) -> dict[str, Any]:
    """Describe a year short of pairs; available counts the patients that were still free for it."""
    return {
        "from": year,
        "to": year + 1,
        "pairs_wanted": config.test_per_year,
        "pairs": min(have.values()),
        "fractured": have[True],
        "normal": have[False],
        "available_fractured_patients": available[True],
        "available_normal_patients": available[False],
    }


def _pools(
    rows: pd.DataFrame, per_patient: Counter[int], config: SplitConfig
) -> dict[bool, pd.DataFrame]:
    """Return the free films of one year by label, in the order in which they are drawn."""
    full = [p for p, count in per_patient.items() if count >= config.test_images_per_patient]
    rows = rows[~rows["patient_id"].isin(full)].sort_values("film_draw")
    # Every patient's first film before anyone's second: more patients in the test set.
    turn = rows.groupby(["patient_id", "fracture_visible"]).cumcount()
    rows = rows.assign(turn=turn).sort_values(["turn", "test_draw", "film_draw"])
    return {label: rows[rows["fracture_visible"] == label] for label in (True, False)}


def _fill_year(
    pools: dict[bool, pd.DataFrame],
    have: dict[bool, int],
    available: dict[bool, int],
    per_patient: Counter[int],
    config: SplitConfig,
) -> list[int]:
    """Draw films of one year until it is full or no pair is left; count them in have, per_patient.

    The scarcer label draws first, so that a patient with both kinds of film goes where the need
    is. Where earlier films have vanished, single films first make the old pairs whole.
    """
    queues = {
        label: iter(list(zip(pool.index, pool["patient_id"], strict=True)))
        for label, pool in pools.items()
    }
    scarce = available[True] <= available[False]
    drawn: list[int] = []

    def take(label: bool) -> int | None:
        for film, patient in queues[label]:
            if per_patient[patient] < config.test_images_per_patient:
                per_patient[patient] += 1
                have[label] += 1
                drawn.append(film)
                return patient
        return None

    while have[True] != have[False] and min(have.values()) < config.test_per_year:
        if take(have[True] < have[False]) is None:
            return drawn
    while max(have.values()) < config.test_per_year:
        first = take(scarce)
        if first is None:
            break
        if take(not scarce) is None:
            per_patient[first] -= 1
            have[scarce] -= 1
            drawn.pop()
            break
    return drawn


# ---- training and validation ------------------------------------------------------------------


def _place_others(films: pd.DataFrame, config: SplitConfig) -> None:
    """Deal the patients without a place to training and validation, or into folds, by stratum."""
    pool = films[films["part"] == ""].sort_values(["validation_draw", "patient_id"])
    patients = pool.groupby("patient_id", sort=False).agg(
        group=("group", "min"), fracture=("fracture_visible", "any")
    )
    firsts = pool.drop_duplicates("patient_id").set_index("patient_id")
    patients[["place", "fold"]] = firsts[["place", "fold"]]
    if config.folds:
        _deal_folds(patients, config.folds)
        patients["place"] = np.where(patients["fold"] == config.fold, "validation", "train")
    else:
        _draw_validation(patients, config.validation_fraction)
    _take_places(films, patients)


def _draw_validation(patients: pd.DataFrame, fraction: float) -> None:
    """In each stratum the patients of the lowest draw validate, up to its share."""
    for _, stratum in patients.groupby(["group", "fracture"]):
        new = stratum.index[stratum["place"] == ""]
        wanted = validation_count(len(stratum), fraction)
        wanted -= int((stratum["place"] == "validation").sum())
        patients.loc[new, "place"] = "train"
        patients.loc[new[: max(wanted, 0)], "place"] = "validation"


def validation_count(patients: int, fraction: float) -> int:
    """Return how many patients of a stratum validate: the rounded share; of two or more, each
    side gets at least one.
    """
    share = math.floor(fraction * patients + 0.5)
    return min(max(share, 1), patients - 1) if patients >= 2 else share


def _deal_folds(patients: pd.DataFrame, folds: int) -> None:
    """Give each new patient the fold that is emptiest in its stratum, then emptiest of all."""
    total = Counter(patients.loc[patients["fold"] >= 0, "fold"])
    for _, stratum in patients.groupby(["group", "fracture"]):
        here = Counter(stratum.loc[stratum["fold"] >= 0, "fold"])
        for patient in stratum.index[stratum["fold"] < 0]:
            fold = min(range(folds), key=lambda f: (here[f], total[f], f))
            here[fold] += 1
            total[fold] += 1
            patients.loc[patient, "fold"] = fold


def _balance_training(films: pd.DataFrame) -> None:
    """Keep as many fractured as normal training films in each year of age, by lowest draw."""
    train = films[films["part"] == "train"].sort_values(["film_draw", "filestem"])
    labels = train.groupby(["year", "fracture_visible"])
    counts = labels.size().unstack(fill_value=0).reindex(columns=[True, False], fill_value=0)
    pairs = train["year"].map(counts.min(axis=1))
    surplus = train.index[labels.cumcount() >= pairs]
    _leave_out(films, films.index.isin(surplus), BALANCED)


# ---- a split made elsewhere -------------------------------------------------------------------


def _place_by_file(films: pd.DataFrame, path: Path) -> dict[str, Any]:
    """Give every film the part that a split file names; return the counts."""
    named = read_split_file(path)
    parts = named.set_index("filestem")["part"]
    found = films["filestem"].map(parts)
    places = found.dropna().groupby(films["patient_id"]).first()
    films["part"] = found.fillna("left_out").astype("str")
    films["place"] = films["patient_id"].map(places).fillna("").astype("str")
    _leave_out(films, found.isna(), NOT_NAMED)
    absent = named.loc[~named["filestem"].isin(films["filestem"]), "filestem"]
    unnamed = films.loc[found.isna(), "filestem"]
    return {
        "name": path.name,
        "films": _by_part(named["part"]),
        "films_in_cohort": _by_part(found.dropna()),
        "films_not_in_cohort": len(absent),
        "not_in_cohort_such_as": absent.head(5).tolist(),
        "cohort_not_named": len(unnamed),
        "not_named_such_as": unnamed.head(5).tolist(),
    }


def _refuse_shared_stems(named: pd.DataFrame, path: Path) -> None:
    """Refuse a file that shares patients, be their films in the cohort or not."""
    table = named.assign(patient_id=named["filestem"].str.split("_").str[0])
    try:
        _refuse_shared_patients(table)
    except PedfracError as error:
        raise PedfracError(f"{path}: is no split by patient: {error}") from None


def _by_part(parts: pd.Series) -> dict[str, int]:
    return {part: int((parts == part).sum()) for part in PLACES}


# ---- the report -------------------------------------------------------------------------------


def _describe(films: pd.DataFrame, split: Split, ages: AgeGroups) -> dict[str, Any]:
    """Return counts per part and age group, why films are left out, and the proof."""
    left_out = films.loc[films["part"] == "left_out", "reason"].value_counts().sort_index()
    return {
        "parts": {part: count_films(films[films["part"] == part]) for part in PARTS},
        "groups": [
            {"group": group, "name": ages.name(group)}
            | {
                part: count_films(films[(films["part"] == part) & (films["group"] == group)])
                for part in PARTS
            }
            for group in range(len(ages))
        ],
        "left_out": {str(reason): int(count) for reason, count in left_out.items()},
        "folds": _fold_counts(films),
        "disjoint": prove_disjoint(split),
    }


def _fold_counts(films: pd.DataFrame) -> list[dict[str, int]]:
    folded = films[films["fold"] >= 0]
    return [{"fold": int(str(fold)), **count_films(rows)} for fold, rows in folded.groupby("fold")]


def prove_disjoint(split: Split) -> dict[str, Any]:
    """Count the patients of each part and those that two parts share: 0 by the law of Split."""
    patients = {
        part: set(split.table.loc[split.table["part"] == part, "patient_id"]) for part in PLACES
    }
    return {
        "patients": {part: len(members) for part, members in patients.items()},
        "shared": {f"{a}-{b}": len(patients[a] & patients[b]) for a, b in combinations(PLACES, 2)},
    }
