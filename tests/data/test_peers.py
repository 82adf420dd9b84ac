"""The comparison with peers: all are given the same images, and the areas are paired by fold."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from pedfrac.config.data import DataConfig
from pedfrac.config.phantoms import PhantomConfig
from pedfrac.data.records import read_records
from pedfrac.errors import PedfracError
from pedfrac.phantoms.dataset import write_phantoms

FOLDER = Path(__file__).parents[2] / "benchmarks" / "peers"


@pytest.fixture(scope="module", autouse=True)
def peers():
    """Let the scripts find each other as they do when they are run."""
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantoms")
    write_phantoms(root, PhantomConfig(images=60, scale=0.1, workers=1))
    return root


def test_peers_get_the_images_of_the_split_with_their_upper_eight_bits(layout, tmp_path):
    from images import PARTS, cut

    folders = cut(layout, tmp_path, train=16, rest=6)
    table = read_records(DataConfig(root=str(layout))).table.set_index("filestem")
    split = pd.read_csv(folders.split)
    assert (split["split"] == "train").sum() == 16
    patients = split["filestem"].map(table["patient_id"]).groupby(split["split"]).agg(set)
    assert not set.intersection(*patients)
    for image in split.itertuples():
        (path,) = (folders.images / PARTS[image.split]).glob(f"*/{image.filestem}.png")
        fractured = bool(table.loc[image.filestem, "fracture_visible"])
        assert path.parent.name == ("fractured" if fractured else "normal")
        published = cv2.imread(
            str(layout / table.loc[image.filestem, "image"]), cv2.IMREAD_UNCHANGED
        )
        given = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert published.dtype == np.uint16 and np.array_equal(given, published >> 8)


def test_a_padded_image_lies_whole_in_the_middle_of_a_black_square():
    from images import _padded

    image = np.arange(1, 36, dtype=np.uint8).reshape(7, 5)
    square = _padded(image)
    assert square.shape == (7, 7)
    assert np.array_equal(square[:, 1:6], image) and square.sum() == image.sum()


def test_an_entry_is_a_system_with_options_and_no_other():
    from entries import Entry

    entry = Entry.parse("timm:workers=2,compile=on")
    assert (entry.name, entry.options) == ("timm", {"workers": "2", "compile": "on"})
    with pytest.raises(PedfracError, match=r"tim.*pedfrac, timm"):
        Entry.parse("tim")


def test_ratios_are_of_a_round_and_the_fastest_peer_counts():
    from compare import epoch_table

    seconds = {"pedfrac": [1.0, 2.0], "timm": [2.0, 4.0], "fastai": [3.0, 9.0]}
    table = epoch_table({name: np.array(each) for name, each in seconds.items()}, 32)
    assert "| timm | 3.00 (2.20–3.80) | 11 | 2.00 (2.00–2.00) |" in table
    assert "fastest peer, timm, over ours: 2.00" in table


def test_differences_are_ours_minus_the_peers_on_folds_that_all_have():
    from compare import area_table

    random = np.random.default_rng(0)
    truth = random.random(300) < 0.3
    images = pd.DataFrame({"filestem": [f"image{k:03d}" for k in range(300)]}).assign(
        patient_id=np.arange(300) // 2, fold=np.arange(300) // 100, fracture_visible=truth
    )
    ours = images[["filestem", "fold"]].assign(network="pedfrac", score=truth.astype(float))
    chance = images[["filestem", "fold"]].assign(network="timm", score=0.5)
    scores = pd.concat([ours, chance[chance["fold"] < 2]])
    runs = pd.DataFrame(
        [("pedfrac", fold, 5, 60.0) for fold in range(3)]
        + [("timm", fold, 4, 58.0) for fold in range(2)],
        columns=["entry", "fold", "epochs", "seconds"],
    )
    table = area_table(images, scores, runs, resamples=100)
    assert "200 held-out images of 100 patients" in table and "2 folds" in table
    ours, timm = (row.split(" | ") for row in table.splitlines()[-2:])
    assert ours[3].startswith("1.00") and ours[4] == "1.00, 1.00"
    assert timm[3].startswith("0.50") and timm[5].startswith("0.50")
