"""How often drift is found where there is some, and called where there is none, by simulation.

Films of one distribution, those of a bundle's reference profile and new ones, are dealt out by
patients into references and windows again and again; windows are changed in known ways. Run
``python benchmarks/drift.py --help``; results stand in RESULTS.md. Not a test: small ones are in
tests/pedfrac/test_drift.py and test_shifts.py.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from pedfrac.bundle import Bundle, bundle_digest
from pedfrac.config import DataConfig, MonitorConfig
from pedfrac.drift import Pair, decided
from pedfrac.films import find_films
from pedfrac.monitored import Observer
from pedfrac.prediction import predict_to
from pedfrac.records import Records, read_records
from pedfrac.reference_profile import Profile, load_profile, views
from pedfrac.windows import Window

RATES = (0.01, 0.05)
FILM = "film_"


def contrast(film: Any) -> Any:
    return (film - film.mean()) * 0.8 + film.mean()


def resolution(film: Any) -> Any:
    return cv2.resize(film, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def same_size_blurred(film: Any) -> Any:
    """Lower resolution that the number of pixels does not tell."""
    return cv2.GaussianBlur(film, (0, 0), 1.5)


SCANNERS: dict[str, Callable[[Any], Any]] = {
    "contrast × 0.8": contrast,
    "half the pixels": resolution,
    "blurred": same_size_blurred,
}
WANTED = {  # what has to be named, for a change to count as named
    "contrast × 0.8": {"film_contrast"},
    "half the pixels": {"film_long_side", "film_sharpness"},
    "blurred": {"film_sharpness"},
    "older children": {"age"},
    "more fractures": {"probability"},
    "fewer fractures": {"probability"},
}


def scored(bundle: Path, records: Records, root: Path, change: Callable[[Any], Any] | None) -> Any:
    """Return films as a profile has them, scored as at work, as they are or changed."""
    table = records.table.set_index("filestem", drop=False)
    with tempfile.TemporaryDirectory() as folder:
        listed = [_film(root / row.image, Path(folder), change) for row in table.itertuples()]
        (Path(folder) / "films.csv").write_text(
            "file,age\n"
            + "".join(
                f"{path},{row.age}\n" for path, row in zip(listed, table.itertuples(), strict=True)
            )
        )
        films = find_films(
            [Path(folder) / "films.csv"], labels=root / "folder_structure/yolov5/labels"
        )
        loaded = Bundle.load(bundle)
        observer = Observer(load_profile(bundle).basis)
        rows = predict_to(
            Path(folder) / "scores.parquet", loaded, bundle_digest(bundle), films, observer=observer
        )
    known = table.loc[[Path(path).stem for path in rows["file"]]].reset_index(drop=True)
    return rows.assign(
        patient=known["patient_id"],
        sex=known["gender"],
        laterality=known["laterality"],
        view=views(known["projection"]),
        fractured=known["fracture_visible"].astype(bool),
    )


def _film(path: Path, folder: Path, change: Callable[[Any], Any] | None) -> Path:
    if change is None:
        return path.absolute()
    film = change(cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float32))
    target = folder / path.name
    cv2.imwrite(str(target), film.clip(0, 65535).astype(np.uint16))
    return target


class Simulation:
    """Windows drawn from new films beside a reference drawn from the profile's and new ones."""

    def __init__(self, profile: Profile, plain: Any, changed: dict[str, Any], draws: int):
        columns = list(profile.films.columns)
        first = profile.films["patient"].max() + 1
        new = plain[columns].assign(patient=plain["patient"] + first)
        self.films = pd.concat([profile.films, new], ignore_index=True)
        self.changed = {
            name: one[columns].assign(patient=one["patient"] + first)
            for name, one in changed.items()
        }
        self.new = new["patient"].unique()
        self.profile = profile
        self.config = MonitorConfig(scores=("-",), bundle="-", draws=draws, false_alarm_rate=0.05)

    def deal(self, random: Any, patients: int, kind: str) -> tuple[Any, Any]:
        """Return a reference of as many patients as the profile has, and a window of others.

        Films of changed windows are drawn so that the change is in the films alone, or in the mix.
        """
        reference = self.profile.films["patient"].nunique()
        if kind == "no change":
            drawn = random.permutation(self.films["patient"].unique())
            window = self.films[self.films["patient"].isin(drawn[reference:][:patients])]
            return self.films[self.films["patient"].isin(drawn[:reference])], window
        pool = self.changed.get(kind, self.films)
        drawn = _weighted(random, pool[pool["patient"].isin(self.new)], patients, kind)
        others = random.permutation(np.setdiff1d(self.films["patient"].unique(), drawn))
        window = pool[pool["patient"].isin(drawn)]
        return self.films[self.films["patient"].isin(others[:reference])], window

    def tests(self, reference: Any, window: Any, known: bool, labels: bool) -> list[Any]:
        about = self.profile.about
        given = window.assign(fractured=window["fractured"].astype(float) if labels else np.nan)
        profile = replace(self.profile, films=reference.reset_index(drop=True), about=about)
        made = Window(given.reset_index(drop=True), known, {}, "", "")
        return decided(Pair.of(profile, made, self.config))


def _weighted(random: Any, pool: Any, patients: int, kind: str) -> Any:
    """Draw patients without replacement, some kinds more often than others."""
    by = pool.groupby("patient")
    age, fractured = by["age"].first(), by["fractured"].mean()
    odds = {
        "older children": np.exp((age - age.mean()) * np.log(3) / 5),
        "more fractures": np.where(fractured > 0.5, 3.0, 1.0),
        "fewer fractures": np.where(fractured > 0.5, 1.0, 3.0),
    }.get(kind, np.ones(len(age)))
    weights = np.asarray(odds, float)
    return random.choice(
        age.index.to_numpy(), min(patients, len(age)), False, weights / weights.sum()
    )


def simulate(
    made: Simulation, kind: str, patients: int, runs: int, known: bool, labels: bool
) -> Iterator[tuple[str, Any]]:
    """Yield tests and facts of each run."""
    for run in range(runs):
        random = np.random.default_rng((run, patients))
        reference, window = made.deal(random, patients, kind)
        if not known:
            window = window.assign(patient=np.arange(len(window)))
        yield made.tests(reference, window, known, labels), (reference, window)


def report(made: Simulation, kinds: list[str], options: Any) -> None:
    ways = {"known": (True, False), "not known": (False, False), "labels": (True, True)}
    for kind in kinds:
        for patients in options.patients:
            for way in options.ways:
                known, labels = ways[way]
                start, rows = time.time(), []
                for tests, (reference, window) in simulate(
                    made, kind, patients, options.runs, known, labels
                ):
                    small = [one for one in tests if one["p_corrected"] <= RATES[0]]
                    named = {one["name"] for one in small if one["size"] >= one["least"]}
                    rows.append(
                        {
                            "films": len(window),
                            "age": window["age"].mean() - reference["age"].mean(),
                            "prevalence": window["fractured"].mean()
                            - reference["fractured"].mean(),
                            **{
                                f"p<={rate:g}": any(one["p_corrected"] <= rate for one in tests)
                                for rate in RATES
                            },
                            "called": bool(named),
                            "named": bool(named & WANTED.get(kind, set())),
                            "others": len(named - WANTED.get(kind, set())),
                        }
                    )
                means = pd.DataFrame(rows).mean()
                words = " ".join(f"{name}={value:.3f}" for name, value in means.items())
                took = (time.time() - start) / options.runs
                print(f"{kind},{patients},{way},{words},{took:.2f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="with a reference profile")
    parser.add_argument("--data", type=Path, required=True, help="new phantoms as the bundle's own")
    parser.add_argument("--patients", type=int, nargs="+", default=[30, 60, 120, 240])
    parser.add_argument("--ways", nargs="+", default=["known"], help="known, not known, labels")
    parser.add_argument("--kinds", nargs="+", default=["no change", *WANTED])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--draws", type=int, default=1999)
    options = parser.parse_args()
    records = read_records(DataConfig(root=str(options.data)))
    profile = load_profile(options.bundle)
    plain = scored(options.bundle, records, options.data, None)
    changed = {
        name: scored(options.bundle, records, options.data, change)
        for name, change in SCANNERS.items()
        if name in options.kinds
    }
    report(Simulation(profile, plain, changed, options.draws), options.kinds, options)


if __name__ == "__main__":
    main()
