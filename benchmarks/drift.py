"""How often drift is found where there is some, and called where there is none, by simulation.

Images of one distribution, those of a bundle's reference profile and new ones, are dealt out by
patients into references and windows again and again; windows are changed in known ways. Run
``python benchmarks/drift.py --help``; results stand in RESULTS.md. Not a test: small ones are in
tests/pedfrac/test_drift.py and test_shifts.py.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from pedfrac.bundle.bundle import Bundle, bundle_digest
from pedfrac.bundle.reference_profile import Profile, load_profile, views
from pedfrac.config.data import DataConfig
from pedfrac.config.monitoring import MonitorConfig
from pedfrac.data.records import Records, read_records
from pedfrac.monitoring.drift import decided
from pedfrac.monitoring.time_windows import Window
from pedfrac.monitoring.variables import Pair
from pedfrac.serving.images import find_images
from pedfrac.serving.observer import Observer
from pedfrac.serving.prediction import predict_to
from pedfrac.serving.score_table import read_scores

RATES = (0.01, 0.05)
IMAGE = "image_"


def contrast(image: Any) -> Any:
    return (image - image.mean()) * 0.9 + image.mean()


def resolution(image: Any) -> Any:
    return cv2.resize(image, None, fx=0.9, fy=0.9, interpolation=cv2.INTER_AREA)


def same_size_blurred(image: Any) -> Any:
    """Lower resolution that the number of pixels does not tell."""
    return cv2.GaussianBlur(image, (0, 0), 0.8)


SCANNERS: dict[str, Callable[[Any], Any]] = {
    "contrast × 0.9": contrast,
    "pixels × 0.9": resolution,
    "blurred": same_size_blurred,
}
WANTED = {  # what has to be named, for a change to count as named
    "contrast × 0.9": {"image_contrast"},
    "pixels × 0.9": {"image_long_side", "image_sharpness"},
    "blurred": {"image_sharpness"},
    "older children": {"age"},
    "more fractures": {"probability"},
    "fewer fractures": {"probability"},
}


def scored(bundle: Path, records: Records, root: Path, change: Callable[[Any], Any] | None) -> Any:
    """Return images as a profile has them, scored as at work, as they are or changed."""
    table = records.table.set_index("filestem", drop=False)
    with tempfile.TemporaryDirectory() as folder:
        listed = [_image(root / row.image, Path(folder), change) for row in table.itertuples()]
        images_csv = Path(folder) / "images.csv"
        pd.DataFrame({"file": listed, "age": table["age"]}).to_csv(images_csv, index=False)
        images = find_images([images_csv], labels=root / "folder_structure/yolov5/labels")
        loaded = Bundle.load(bundle)
        observer = Observer(load_profile(bundle).basis)
        scores = Path(folder) / "scores.parquet"
        predict_to(scores, loaded, bundle_digest(bundle), images, observer=observer)
        rows = read_scores(scores)
    known = table.loc[[Path(path).stem for path in rows["file"]]].reset_index(drop=True)
    return rows.assign(
        patient=known["patient_id"],
        sex=known["gender"],
        laterality=known["laterality"],
        view=views(known["projection"]),
        fractured=known["fracture_visible"].astype(bool),
    )


def _image(path: Path, folder: Path, change: Callable[[Any], Any] | None) -> Path:
    if change is None:
        return path.absolute()
    image = change(cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float32))
    target = folder / path.name
    cv2.imwrite(str(target), image.clip(0, 65535).astype(np.uint16))
    return target


class Simulation:
    """Windows drawn from new images beside a reference drawn from the profile's and new ones."""

    def __init__(self, profile: Profile, plain: Any, changed: dict[str, Any], draws: int):
        columns = list(profile.images.columns)
        first = profile.images["patient"].max() + 1
        new = plain[columns].assign(patient=plain["patient"] + first)
        self.images = pd.concat([profile.images, new], ignore_index=True)
        self.changed = {
            name: one[columns].assign(patient=one["patient"] + first)
            for name, one in changed.items()
        }
        self.new = new["patient"].unique()
        self.profile = profile
        self.config = MonitorConfig(scores=("-",), bundle="-", draws=draws, false_alarm_rate=0.05)

    def deal(self, random: Any, patients: int, kind: str) -> tuple[Any, Any]:
        """Return a reference of as many patients as the profile has, and a window of others.

        Images of changed windows are drawn so that the change is in the images alone, or in the
        mix.
        """
        reference = self.profile.images["patient"].nunique()
        if kind == "no change":
            drawn = random.permutation(self.images["patient"].unique())
            window = self.images[self.images["patient"].isin(drawn[reference:][:patients])]
            return self.images[self.images["patient"].isin(drawn[:reference])], window
        pool = self.changed.get(kind, self.images)
        drawn = _weighted(random, pool[pool["patient"].isin(self.new)], patients, kind)
        others = random.permutation(np.setdiff1d(self.images["patient"].unique(), drawn))
        window = pool[pool["patient"].isin(drawn)]
        return self.images[self.images["patient"].isin(others[:reference])], window

    def tests(self, reference: Any, window: Any, known: bool, labels: bool) -> list[Any]:
        about = self.profile.about
        given = window.assign(fractured=window["fractured"].astype(float) if labels else np.nan)
        profile = replace(self.profile, images=reference.reset_index(drop=True), about=about)
        made = Window(given.reset_index(drop=True), known, {}, "", "")
        return decided(Pair.of(profile, made, self.config))


def _weighted(random: Any, pool: Any, patients: int, kind: str) -> Any:
    """Draw patients without replacement, some kinds more often than others."""
    by = pool.groupby("patient")
    age, fractured = by["age"].first(), by["fractured"].mean()
    odds = {
        "older children": np.exp((age - age.mean()) * np.log(2) / 5),
        "more fractures": np.where(fractured > 0.5, 2.0, 1.0),
        "fewer fractures": np.where(fractured > 0.5, 1.0, 2.0),
    }.get(kind, np.ones(len(age)))
    weights = np.asarray(odds, float)
    return random.choice(
        age.index.to_numpy(), min(patients, len(age)), False, weights / weights.sum()
    )


WAYS = {  # whether the window's patients are known, and whether it has labels
    "known": (True, False),
    "not known": (False, False),
    "labels": (True, True),
    "images alone": (True, False),  # as if each image were a patient: what not to do
}


def simulate(
    made: Simulation, kind: str, patients: int, runs: int, way: str
) -> Iterator[tuple[list[Any], Any, Any]]:
    """Yield the tests, reference and window of each run."""
    known, labels = WAYS[way]
    for run in range(runs):
        random = np.random.default_rng((run, patients))
        reference, window = made.deal(random, patients, kind)
        if way in ("not known", "images alone"):
            window = window.assign(patient=np.arange(len(window)))
        if way == "images alone":
            reference = reference.assign(patient=np.arange(len(reference)))
        yield made.tests(reference, window, known, labels), reference, window


def row_of(tests: list[Any], reference: Any, window: Any, wanted: set[str]) -> dict[str, float]:
    """Return what one run found, at the lowest of RATES."""
    small = [one for one in tests if one["p_corrected"] <= RATES[0]]
    called = {one["name"] for one in small if one["size"] >= one["least"]}
    return {
        "images": len(window),
        "age": window["age"].mean() - reference["age"].mean(),
        "prevalence": window["fractured"].mean() - reference["fractured"].mean(),
        **{f"p<={rate:g}": any(one["p_corrected"] <= rate for one in tests) for rate in RATES},
        "called": bool(called),
        "named": bool(called & wanted),
        "others": len(called - wanted),
    }


def report(made: Simulation, kind: str, patients: int, way: str, runs: int) -> None:
    """Print the means over all runs."""
    start = time.time()
    found = simulate(made, kind, patients, runs, way)
    rows = [row_of(*one, WANTED.get(kind, set())) for one in found]
    means = pd.DataFrame(rows).mean()
    words = " ".join(f"{name}={value:.3f}" for name, value in means.items())
    print(f"{kind},{patients},{way},{words},{(time.time() - start) / runs:.2f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="with a reference profile")
    parser.add_argument("--data", type=Path, required=True, help="new phantoms as the bundle's own")
    parser.add_argument("--patients", type=int, nargs="+", default=[30, 60, 120, 240])
    parser.add_argument("--ways", nargs="+", default=["known"], choices=WAYS)
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
    made = Simulation(profile, plain, changed, options.draws)
    for kind, patients, way in product(options.kinds, options.patients, options.ways):
        report(made, kind, patients, way, options.runs)


if __name__ == "__main__":
    main()
