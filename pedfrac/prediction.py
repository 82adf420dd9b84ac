"""Scoring of any films with a bundle: files in, one row a film out, a bad film named and passed.

Not here: scoring of packs in evaluation, which the bundle does itself.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pedfrac.bundle import Bundle
from pedfrac.errors import PedfracError
from pedfrac.packing import TEXT
from pedfrac.pixels import decode, prepare, yolo_to_xyxy

logger = logging.getLogger(__name__)

CALLS = ("fractured", "normal", "left to a reader")
IMAGES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Film:
    """A film to score: its file, the age in years if known, and its YOLO labels if there are."""

    path: Path
    age: float = float("nan")
    labels: Path | None = None


@dataclass(frozen=True)
class _Prepared:
    film: Film
    fracture: NDArray[np.uint8] | None
    age: NDArray[np.uint8] | None
    error: str = ""


def find_films(
    paths: Sequence[Path], ages: Mapping[str, float] | None = None, labels: Path | None = None
) -> list[Film]:
    """Return the films that files and folders (searched through) name, in order of their names.

    ``ages`` are years by file stem; ``labels`` is a folder of YOLO labels whose boxes of text are
    taken out of the films as in training. Raises PedfracError where there is no film.
    """
    found = sorted({path for given in paths for path in _images_below(given)})
    if not found:
        raise PedfracError(
            f"{', '.join(map(str, paths))}: no film found; allowed are {', '.join(IMAGES)}"
        )
    if labels is not None and not labels.is_dir():
        raise PedfracError(f"{labels}: no such folder of labels")
    years = ages or {}
    return [
        Film(path, years.get(path.stem, float("nan")), labels and labels / f"{path.stem}.txt")
        for path in found
    ]


def read_ages(path: Path) -> dict[str, float]:
    """Read ages in years by file stem from a CSV with the columns ``filestem`` and ``age``.

    An empty age means unknown. Raises PedfracError naming the line of an age that is no number.
    """
    try:
        table = pd.read_csv(path, dtype=str, encoding="utf-8-sig", keep_default_na=False)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, ValueError) as error:
        raise PedfracError(f"{path}: cannot be read as a table ({error})") from None
    if missing := {"filestem", "age"} - set(table.columns):
        raise PedfracError(f"{path}: column {', '.join(sorted(missing))} is missing")
    years = pd.to_numeric(table["age"], errors="coerce")
    wrong = ((years.isna() | (years < 0) | (years > 120)) & (table["age"] != "")).to_numpy()
    if wrong.any():
        line = int(np.flatnonzero(wrong)[0])
        raise PedfracError(
            f"{path} line {line + 2}: age {table['age'].iloc[line]!r} is no number of years 0-120"
        )
    return dict(zip(table["filestem"], years, strict=True))


def predict(
    bundle: Bundle,
    films: Sequence[Film],
    *,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Score films; return one row for each, in their order.

    Columns: ``file``, ``age`` (years), ``age_group_recorded``, ``age_group_seen``,
    ``age_group_used``, ``routed_by`` (age or film), ``probability`` of fracture (calibrated),
    ``threshold``, ``call`` (of CALLS; the last only where the bundle abstains), ``network`` (whose
    it is: the specialist's, the generalist's or the average of both), ``generalist`` (probability
    by the generalist alone), ``markers`` (removed, left for want of labels, or kept because the
    bundle learned with them), ``error`` (why a film has no score).
    """
    parts = []
    for start, batch in enumerate(_prepared(bundle, films, batch_size)):
        parts.append(_score(bundle, batch))
        if progress:
            progress(min(len(films), (start + 1) * batch_size), len(films))
    return pd.concat(parts, ignore_index=True)


def _images_below(given: Path) -> Iterator[Path]:
    if given.is_dir():
        yield from (path for path in given.rglob("*") if path.suffix.lower() in IMAGES)
    elif given.is_file():
        yield given
    else:
        raise PedfracError(f"{given}: no such file or folder")


def _prepared(bundle: Bundle, films: Sequence[Film], batch_size: int) -> Iterator[list[_Prepared]]:
    """Decode batches in threads (OpenCV lets go of the interpreter), one batch ahead at most."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(films), batch_size):
            yield list(pool.map(partial(_prepare, bundle), films[start : start + batch_size]))


def _prepare(bundle: Bundle, film: Film) -> _Prepared:
    try:
        grey = decode(film.path)
        boxes = text_boxes(film.labels, grey.shape)
        fracture, _ = prepare(grey, boxes, bundle.info.fracture.preparation)
        age, _ = prepare(grey, boxes, bundle.info.age.preparation)
    except PedfracError as error:
        logger.warning("%s", error)
        return _Prepared(film, None, None, str(error))
    return _Prepared(film, fracture, age)


def text_boxes(labels: Path | None, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the boxes of burnt-in text (n, 4) xyxy in pixels that a YOLO file gives a film."""
    if labels is None or not labels.is_file():
        return np.empty((0, 4))
    try:
        rows = np.loadtxt(labels, ndmin=2).reshape(-1, 5)
    except ValueError as error:
        raise PedfracError(f"{labels}: is no YOLO label file ({error})") from None
    height, width = shape[:2]
    return yolo_to_xyxy(rows[rows[:, 0] == TEXT, 1:], width, height)


def _score(bundle: Bundle, batch: list[_Prepared]) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "file": [str(item.film.path) for item in batch],
            "age": [item.film.age for item in batch],
            "error": [item.error for item in batch],
            "markers": [_marker_state(bundle, item.film) for item in batch],
        }
    )
    usable = [item for item in batch if not item.error]
    if not usable:
        return frame.reindex(columns=list(_COLUMNS))
    scores = bundle.score(
        np.stack([item.fracture for item in usable if item.fracture is not None]),
        np.stack([item.age for item in usable if item.age is not None]),
        [item.film.age for item in usable],
    )
    scores.index = frame.index[frame["error"] == ""]
    return frame.join(_calls(bundle, scores))[list(_COLUMNS)]


_COLUMNS = (
    "file",
    "age",
    "age_group_recorded",
    "age_group_seen",
    "age_group_used",
    "routed_by",
    "probability",
    "threshold",
    "call",
    "network",
    "generalist",
    "markers",
    "error",
)


def _calls(bundle: Bundle, scores: pd.DataFrame) -> pd.DataFrame:
    """Route each film by its age where that is known, else by what the film shows."""
    names = np.array([*bundle.info.ages.names, ""])  # -1, no group, is the empty name
    known = (scores["group"] >= 0).to_numpy()
    used = np.where(known, scores["group"], scores["group_seen"])
    probability = np.where(known, scores["bundle"], scores["seen"])
    scorer = bundle.info.scorers["bundle"]
    low, high = scorer.bounds(used)
    return pd.DataFrame(
        {
            "age_group_recorded": names[scores["group"]],
            "age_group_seen": names[scores["group_seen"]],
            "age_group_used": names[used],
            "routed_by": np.where(known, "age", "film"),
            "probability": probability,
            "threshold": np.array(scorer.thresholds)[used],
            "call": np.select([probability >= high, probability < low], CALLS[:2], CALLS[2]),
            "network": np.array(scorer.choices)[used],
            "generalist": scores["generalist"],
        },
        index=scores.index,
    )


def _marker_state(bundle: Bundle, film: Film) -> str:
    if bundle.info.fracture.preparation.markers == "off":
        return "kept"
    return "removed" if film.labels is not None and film.labels.is_file() else "left"
