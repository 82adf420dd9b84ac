"""The same images for every system: as published for ours, as folders of images for the peers.

Peers open images by Pillow or OpenCV's default, which clip or round 16 bits each in its own way.
So they are given the upper 8 bits as PNG of the same size, as OpenCV would read them.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from adapter import CLASSES
from numpy.typing import NDArray

from pedfrac.config.data import DataConfig
from pedfrac.data.records import read_records
from pedfrac.errors import PedfracError

PARTS = {"train": "train", "valid": "val", "test": "test"}  # of a split file: folder of the peers


@dataclass(frozen=True)
class ImageFolders:
    """One data set in both shapes: the published layout with a split file, and image folders."""

    layout: Path
    split: Path
    images: Path


def write_phantoms(root: Path, images: int) -> None:
    """Write so many phantoms of the size of real images, unless they are there."""
    if not (root / "dataset.csv").exists():
        command = [sys.executable, "-m", "flows.cli", "phantom", str(root), "--images", str(images)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def cut(layout: Path, folder: Path, train: int, rest: int) -> ImageFolders:
    """Return a part of a data set, by patient: so many training images and about ``rest`` others.

    Every peer leaves out or keeps a short last batch as it likes: ``train`` should be a multiple
    of the batch.
    """
    table = read_records(DataConfig(root=str(layout))).table
    patients = table["patient_id"].drop_duplicates().sample(frac=1, random_state=0)
    table = table.set_index("patient_id").loc[patients].reset_index()
    inside = table[table["patient_id"].isin(table["patient_id"].iloc[:train].unique())]
    outside = table[~table["patient_id"].isin(inside["patient_id"])]
    if len(outside) < 2 * rest:
        raise PedfracError(f"{layout}: holds {len(table)} images, too few for {train} + 2 · {rest}")
    half = outside["patient_id"].iloc[:rest].unique()
    parts = {
        "train": inside.iloc[:train],
        "valid": outside[outside["patient_id"].isin(half)],
        "test": outside[~outside["patient_id"].isin(half)].iloc[:rest],
    }
    chosen = pd.concat(part.assign(split=name) for name, part in parts.items())
    return write_folders(layout, folder, chosen, square=False)


def write_folders(
    layout: Path, folder: Path, images: pd.DataFrame, *, square: bool
) -> ImageFolders:
    """Write images (filestem, image, split, fracture_visible) as a split file and image folders.

    ``square`` pads them with black to squares, so that a peer that crops the middle loses nothing.
    """
    found = ImageFolders(layout, folder / "split.csv", folder / "images")
    if found.split.exists():
        return found
    for part in PARTS.values():
        for kind in CLASSES:
            (found.images / part / kind).mkdir(parents=True, exist_ok=True)
    for image in images.itertuples():
        kind = CLASSES[0 if image.fracture_visible else 1]
        source = layout / image.image
        target = found.images / PARTS[image.split] / kind / f"{image.filestem}{source.suffix}"
        _write_image(source, target, square)
    images[["filestem", "split"]].to_csv(found.split, index=False)  # last: with it, all is there
    return found


def _write_image(source: Path, target: Path, square: bool) -> None:
    if source.suffix != ".png" and not square:
        shutil.copyfile(source, target)
        return
    pixels = cv2.imread(os.fspath(source), cv2.IMREAD_UNCHANGED)
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    cv2.imwrite(os.fspath(target.with_suffix(".png")), _padded(pixels) if square else pixels)


def _padded(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image in the middle of a black square."""
    height, width = pixels.shape[:2]
    side = max(height, width)
    down, across = side - height, side - width
    return cv2.copyMakeBorder(
        pixels,
        down // 2,
        down - down // 2,
        across // 2,
        across - across // 2,
        cv2.BORDER_CONSTANT,
        value=0,
    )
