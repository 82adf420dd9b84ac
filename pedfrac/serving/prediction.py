"""Prediction: images in, one row per image out; an image that fails is reported by name.

Not here: how images are found and read (images), scoring of packs in evaluation, which the bundle
does itself, and what scores look like on disk (score_files).
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from pedfrac.age_groups import AgeGroups
from pedfrac.bundle.bundle import Bundle
from pedfrac.bundle.calls import routed_calls
from pedfrac.bundle.embedding import watched
from pedfrac.bundle.reference_profile import WATCHED
from pedfrac.serving.images import Image, PreparedImage, prepare_image
from pedfrac.serving.marked_fractures import boxes_in_words, fracture_maps
from pedfrac.serving.observer import Observer
from pedfrac.serving.prefetch import prepared_batches
from pedfrac.serving.score_table import ScoreFile
from pedfrac.storage.code_version import code_digest
from pedfrac.storage.files import content_hash, file_hash

logger = logging.getLogger(__name__)
CODE = (
    *("age_groups", "bundle", "imaging", "models", "scoring"),
    *("serving.images", "serving.marked_fractures", "serving.prediction"),
)
"""What a score follows from beside bundle and image; no page, no table, nothing that trains."""
NUMBERS = ("age", "probability", "prevalence", "threshold", "generalist")
COLUMNS = (
    "file",
    "age",
    "laterality",
    "view",
    "age_group_recorded",
    "age_group_seen",
    "age_group_used",
    "routed_by",
    "probability",
    "prevalence",
    "threshold",
    "call",
    "network",
    "generalist",
    "boxes",
    "markers",
    "note",
    "error",
)
Batch = Sequence[PreparedImage]
Witness = Callable[[Batch, pd.DataFrame], None]
"""Told of each batch of images and its rows before they are kept."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """How many images have which call, and why some have no DICOM output, by image.

    ``calls``: images by call, "" where an image has no score. ``read`` returns the rows;
    ``left_out`` holds what lay among the images and is none that is read, with the reason.
    """

    calls: Counter[str]
    without_dicom: dict[str, str]
    read: Callable[[], pd.DataFrame]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One row an image (see ``predict``), read from the table if one was written."""
        return self.read()

    @property
    def failed(self) -> int:
        """Number of images without a score."""
        return self.calls[""]

    def in_words(self) -> str:
        """Return how many images were scored, and how many not."""
        count = self.calls.total()
        words = f"{count - self.failed} of {count} images scored"
        if self.failed:
            words += f", {self.failed} failed"
        if self.without_dicom:
            words += f", {len(self.without_dicom)} scored without DICOM output"
        if self.left_out:
            counts = Counter(self.left_out.values()).most_common()
            reasons = ", ".join(f"{number} {reason}" for reason, number in counts)
            words += f", {len(self.left_out)} left out: {reasons}"
        return words


def predict(
    bundle: Bundle,
    images: Sequence[Image],
    *,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
    witness: Witness = lambda images, rows: None,
) -> pd.DataFrame:
    """Score images; return one row for each, in their order.

    Columns: ``file``, ``age`` (years), ``laterality`` and ``view`` (as a DICOM file states them),
    ``age_group_recorded``, ``age_group_seen``, ``age_group_used``, ``routed_by`` (age or image),
    ``probability`` of fracture (calibrated) where ``prevalence`` is the share of fractured images,
    ``threshold``, ``call`` (of CALLS; the last only where
    the bundle abstains), ``network`` (whose it is: the specialist's, the generalist's or the
    average of both), ``generalist`` (probability by the generalist alone), ``boxes`` (where the
    generalist sees a fracture, as JSON: corners in the image's pixels, each with a score; empty
    where the bundle has no map of fractures), ``markers`` (removed, none found by the labels, left
    for want of labels, or kept because the bundle learned with them), ``note`` (what a reader of
    the score should know), ``error`` (why an image has no score). NaN and empty text: no value.
    """
    parts = []
    for batch, rows in _scored(bundle, images, batch_size, progress, Observer(None)):
        witness(batch, rows)
        parts.append(rows)
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def predict_to(
    output: Path,
    bundle: Bundle,
    digest: str,
    images: Sequence[Image],
    *,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
    witness: Witness = lambda images, rows: None,
    is_whole: Callable[[str], bool] = lambda key: True,
    observer: Observer | None = None,
) -> Counter[str]:
    """Score images into a file (see ScoreFile), in their order; return how many have which call.

    An image that a finished or killed run left a score of is not scored again while image, age,
    labels, bundle (``digest``) and code are the same, and ``is_whole(key)``. Beside those of
    ``predict`` the columns are ``bundle``, the start of its digest, ``key``, the image's name in
    all else that is written of it, and what the ``observer`` keeps for monitoring.
    """
    observer = observer or Observer(None)
    table = ScoreFile(output, NUMBERS, observer.numbers)
    with table.opened():
        prevalence = bundle.scorers["bundle"].prevalence
        keys = _keys(images, f"{digest} at {prevalence}")
        done = table.scored()
        missing = [key for key in keys if key not in done or not is_whole(key)]
        if len(missing) < len(images):
            logger.info("%d of %d images have their score", len(images) - len(missing), len(images))
        names = iter(missing)
        scored = _scored(bundle, [keys[key] for key in missing], batch_size, progress, observer)
        for batch, rows in scored:
            rows = rows.assign(bundle=digest[:16], key=list(islice(names, len(batch))))
            witness(batch, rows)
            table.add(rows)
        calls: Counter[str] = Counter()
        table.finish(_in_order(table, list(keys), observer, calls))
        return calls


def _in_order(
    table: ScoreFile, keys: Sequence[str], observer: Observer, calls: Counter[str]
) -> Iterator[pd.DataFrame]:
    """Yield the rows of a table, and count the calls."""
    columns, numbers = [*COLUMNS, "bundle", "key", *observer.columns], [*NUMBERS, *observer.numbers]
    types = dict.fromkeys(columns, "str") | dict.fromkeys(numbers, "float64")
    for rows in table.pieces(keys):
        calls.update(rows["call"])
        yield rows.reindex(columns=columns).astype(types)


def _keys(images: Sequence[Image], digest: str) -> dict[str, Image]:
    """Return the images by the key of their score."""
    made_by = [digest, code_digest(CODE)]
    return {content_hash([made_by, *_identity(image)])[:16]: image for image in images}


def _identity(image: Image) -> list[str]:
    labels = image.labels
    try:
        drawn = file_hash(labels) if labels else ""
    except OSError:
        drawn = ""  # it is the image's error when it is read
    return [str(image), image.version, repr(image.age), drawn]


def _scored(
    bundle: Bundle,
    images: Sequence[Image],
    batch_size: int,
    progress: Callable[[int, int], None] | None,
    observer: Observer,
) -> Iterator[tuple[Batch, pd.DataFrame]]:
    done, info = 0, bundle.info
    prepare = partial(prepare_image, fracture=info.fracture.preparation, age=info.age.preparation)
    # on cores that networks and decoders share, each would have the other wait for its threads
    ahead = 0 if bundle.device.type == "cpu" else 1
    for batch in prepared_batches(images, prepare, batch_size, ahead=ahead):
        for one in batch:
            if one.error:
                logger.warning("%s", one.error)
        yield batch, _score(bundle, batch, observer)
        done += len(batch)
        if progress:
            progress(done, len(images))


def _score(bundle: Bundle, batch: Batch, observer: Observer) -> pd.DataFrame:
    years, notes = zip(*(_routable_age(bundle.ages, one) for one in batch), strict=True)
    frame = pd.DataFrame(
        {
            "file": [str(one.image) for one in batch],
            "age": [one.age for one in batch],
            "laterality": [one.laterality for one in batch],
            "view": [one.view for one in batch],
            "note": notes,
            "error": [one.error for one in batch],
            "markers": [_marker_state(bundle, one) for one in batch],
        }
    )
    usable = frame.index[frame["error"] == ""]
    if len(usable):
        fracture, age = (
            np.stack([image for one in batch if (image := getattr(one, name)) is not None])
            for name in ("fracture_image", "age_image")
        )
        with watched(bundle.networks[WATCHED]) as features, fracture_maps(bundle) as maps:
            ages = np.array(years)[usable]
            scores = bundle.score(fracture, age, ages, specialists="needed")
        scores.index = usable
        seen = observer.describe([batch[row] for row in usable], features).set_index(usable)
        marked = boxes_in_words(bundle, [batch[row] for row in usable], maps)
        boxes = pd.Series(marked, index=usable, name="boxes")
        frame = frame.join(routed_calls(bundle, scores)).join(seen).join(boxes)
    columns, numbers = [*COLUMNS, *observer.columns], [*NUMBERS, *observer.numbers]
    frame = frame.reindex(columns=columns)
    texts = [name for name in columns if name not in numbers]
    return (
        frame.astype(dict.fromkeys(numbers, float))
        .fillna(dict.fromkeys(texts, ""))
        .astype(dict.fromkeys(texts, str))
    )


def _routable_age(ages: AgeGroups, image: PreparedImage) -> tuple[float, str]:
    """Return the age by which an image is routed (NaN: it tells no group) and the image's note.

    An age in whole years tells none where a bound lies within the year.
    """
    notes, age = [image.note] if image.note else [], image.age
    within = [bound for bound in ages.bounds if age < bound < age + 1]
    if image.whole_years and within:
        notes.append(f"age of {age:g} whole years may lie on either side of {within[0]:g}")
        age = float("nan")
    elif age == age and ages.assign([age])[0] < 0:
        notes.append(f"age outside {ages.bounds[0]:g}-{ages.bounds[-1]:g} years")
    return age, "; ".join(notes)


def _marker_state(bundle: Bundle, image: PreparedImage) -> str:
    return "kept" if bundle.info.fracture.preparation.markers == "off" else image.markers
