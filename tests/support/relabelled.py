"""Data sets as they change between retrainings: fewer images, or labels dealt at random."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

BOX = "3 0.5 0.5 0.2 0.2"  # a fracture in the middle, where there is none


def read_rows(folder: Path) -> pd.DataFrame:
    """Return dataset.csv as it stands, every cell a text."""
    return pd.read_csv(
        folder / "dataset.csv", encoding="utf-8-sig", dtype=str, keep_default_na=False
    )


def write_rows(folder: Path, rows: pd.DataFrame) -> None:
    """Write dataset.csv as it is published, with a byte order mark."""
    rows.to_csv(folder / "dataset.csv", encoding="utf-8-sig", index=False)


def shuffle_labels(folder: Path, kept: set[str]) -> None:
    """Deal the labels of all images anew, but for those of the patients ``kept``; boxes follow.

    So that fewer than 45 % of them stay: else networks may learn from what is right by chance.
    """
    rows = read_rows(folder)
    dealt = ~rows["patient_id"].isin(kept)
    old = rows["fracture_visible"].to_numpy()
    new, random = old.copy(), np.random.default_rng(0)
    while np.mean(new[dealt] == old[dealt]) >= 0.45:
        new[dealt] = random.permutation(old[dealt])
    for stem, before, after in zip(rows["filestem"], old, new, strict=True):
        if before != after:
            (file,) = folder.rglob(f"{stem}.txt")
            lines = [line for line in file.read_text().splitlines() if line[:2] != "3 "]
            file.write_text("\n".join([*lines, *([BOX] if after else [])]) + "\n")
    write_rows(folder, rows.assign(fracture_visible=new))


def mark_fractures(folder: Path) -> None:
    """Paint a bright bar on each image with a fracture, which tiny networks learn in seconds."""
    rows = read_rows(folder).set_index("filestem")
    for path in folder.glob("images*/*.png"):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if rows["fracture_visible"][path.stem]:
            height, width = image.shape
            image[int(0.4 * height) : int(0.6 * height), int(0.2 * width) : int(0.8 * width)] = (
                65535
            )
            cv2.imwrite(str(path), image)
