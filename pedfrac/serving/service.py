"""A bundle that answers requests: rows with an image each in, rows with its score out.

Not here: MLflow, which wraps it (served_model), and scoring itself (prediction).
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pedfrac.bundle.bundle import Bundle, bundle_digest
from pedfrac.bundle.calls import CALLS
from pedfrac.compute.devices import resolve_device
from pedfrac.errors import PedfracError
from pedfrac.serving.images import NAN, Image
from pedfrac.serving.prediction import COLUMNS, NUMBERS, Batch, predict
from pedfrac.serving.score_table import as_records

INPUTS: Mapping[str, type] = {"image": str, "path": str, "age": float}
"""Columns of a request: an image's file in base64, or where it lies, and the age in years if known.

In base64 and not MLflow's type for bytes, which takes anything for base64 and no row without.
"""
PARAMETERS: Mapping[str, Any] = {"heat_map": False}
"""Parameters of a request, with their defaults."""
LEFT_TO_READER, HEAT_MAP, BUNDLE = "left_to_reader", "heat_map", "bundle"
ANSWERS: Mapping[str, type] = {
    **{name: float if name in NUMBERS else str for name in COLUMNS},
    LEFT_TO_READER: bool,
    BUNDLE: str,
    HEAT_MAP: str,
}
"""Columns of an answer: those of ``prediction.predict`` and what ``Served.answer`` says."""


class Served:
    """A loaded bundle that answers requests."""

    def __init__(self, bundle: Bundle, digest: str):
        self.bundle, self.digest = bundle, digest

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> "Served":
        """Load the bundle in a folder; ``device``: auto, cpu, cuda or cuda:N."""
        return cls(Bundle.load(folder, resolve_device(device)), bundle_digest(folder))

    def answer(self, request: pd.DataFrame, heat_map: bool = False) -> pd.DataFrame:
        """Score the images of a request; return one row for each, in their order.

        A row has ``image`` (a PNG, JPEG or DICOM file as bytes or in base64) or ``path`` (of one
        that this machine sees), and perhaps ``age`` in years. To the columns of
        ``prediction.predict`` come ``left_to_reader`` (whether the bundle abstains), ``bundle``
        (start of its digest) and, where asked for, ``heat_map``: a PNG in base64 to lay over the
        image. None: no value. Images that did not come by path are called by their row, the first
        is ``row 1``. An image that cannot be scored is answered with its ``error``. Raises
        PedfracError for a request that is wrong.
        """
        maps: list[str | None] = []

        def keep(images: Batch, rows: pd.DataFrame) -> None:
            if heat_map:
                maps.extend(_heat_maps(self.bundle, images, rows))

        with TemporaryDirectory() as folder:
            images = _images(request, Path(folder))
            rows = predict(self.bundle, images, witness=keep)
        left = rows["call"].eq(CALLS[2]).astype(object)
        rows[LEFT_TO_READER] = left.where(rows["call"] != "", None)
        rows[BUNDLE] = self.digest[:16]
        if heat_map:
            rows[HEAT_MAP] = maps
        return rows.astype(object).where(rows.notna(), None)


def _images(request: pd.DataFrame, folder: Path) -> list[Image]:
    """Return the images of a request; images sent as bytes are written to the folder."""
    if not len(request) or not {"image", "path"} & set(request.columns):
        raise PedfracError(
            f"a request must have rows, and of the columns {', '.join(INPUTS)} image or path"
        )
    records = as_records(request.reindex(columns=list(INPUTS)))
    return [_image(row, f"row {number}", folder) for number, row in enumerate(records, start=1)]


def _image(row: Mapping[str, Any], name: str, folder: Path) -> Image:
    age = _years(row["age"], name)
    data, path = row["image"], row["path"]
    if (data is None) == (path is None):
        found = "neither" if data is None else "both"
        raise PedfracError(f"{name}: must hold image or path, found {found}")
    if path is not None:
        return Image(Path(path), age=age)
    written = folder / name
    written.write_bytes(_bytes(data, name))
    return Image(written, age=age, name=name)


def _bytes(data: Any, name: str) -> bytes:
    if isinstance(data, bytes):
        return data
    try:
        return base64.b64decode("".join(data.split()), validate=True)  # some tools wrap its lines
    except (AttributeError, ValueError) as error:
        raise PedfracError(f"{name}: image must be bytes or base64 ({error})") from None


def _years(age: Any, name: str) -> float:
    if age is None:
        return NAN
    if not 0 <= age <= 120:
        raise PedfracError(f"{name}: age {age!r} is no number of years 0-120")
    return float(age)


def _heat_maps(bundle: Bundle, images: Batch, rows: pd.DataFrame) -> list[str | None]:
    """Return a PNG in base64 for each image that was scored: its heat, as large as the image."""
    from pedfrac.explanation.overlays import heat_layer
    from pedfrac.serving.heat_maps import maps_of_group

    maps: list[str | None] = [None] * len(images)
    groups = rows["age_group_used"].to_numpy()
    for group in sorted(set(groups) - {""}):
        some = np.flatnonzero(groups == group).tolist()
        heats = maps_of_group(bundle, group, [images[one] for one in some])
        for one, heat in zip(some, heats, strict=True):
            maps[one] = _png(heat_layer(heat, images[one].shape))
    return maps


def _png(picture: NDArray[np.uint8]) -> str:
    """Return a picture (height,width,4), red first, as a PNG in base64."""
    data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA))[1]
    return base64.b64encode(data.tobytes()).decode()
