"""A bundle of tiny networks: what it routes, refuses and predicts from files."""

import cv2
import numpy as np
import pytest
from safetensors.torch import save_file

from pedfrac.bundle import Bundle, BundleInfo, weight_names, write_bundle
from pedfrac.config import ModelConfig, Preparation
from pedfrac.errors import PedfracError
from pedfrac.models import build_model
from pedfrac.prediction import Film, find_films, predict, read_ages
from pedfrac.training import seed_weights

OPTIONS = {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}
MODEL = ModelConfig(backbone="convnextv2_atto", size=32, weights="none", options=OPTIONS)
NETWORK = {"model": MODEL, "preparation": Preparation(size=32, markers="fill")}
INFO = BundleInfo.model_validate(
    {
        "age_bounds": (0, 5, 10, 19),
        "fracture": NETWORK,
        "age": NETWORK,
        "thresholds": {"generalist": 0.5, "specialists": (0.3, 0.5, 0.7)},
    }
)


@pytest.fixture
def folder(tmp_path):
    """A bundle of random networks, all different."""
    weights = {}
    for seed, name in enumerate(weight_names(INFO.ages)):
        seed_weights(seed)
        model = build_model(MODEL, 3 if name == "age" else 2)
        for parameter in model.network.get_classifier().parameters():
            parameter.data.normal_(std=0.5)
        weights[name] = tmp_path / f"{name}.weights"
        save_file(model.state_dict(), weights[name])
    target = tmp_path / "bundle"
    target.mkdir()
    write_bundle(target, INFO, weights)
    return target


def write_film(path, seed=0):
    rng = np.random.default_rng(seed)
    cv2.imwrite(str(path), rng.integers(0, 65536, (60, 40), dtype=np.uint16))
    return path


def random_films(count=6):
    return np.random.default_rng(1).integers(0, 256, (count, 32, 32), dtype=np.uint8)


def test_recorded_age_chooses_the_specialist(folder):
    bundle, films = Bundle.load(folder), random_films(3)
    together = bundle.score(films, films, [1, 7, 19])
    assert together["group"].tolist() == [0, 1, 2]
    for row, age in enumerate([1, 7, 19]):
        alone = bundle.score(films[row : row + 1], films[row : row + 1], [age])
        assert alone["recorded"][0] == pytest.approx(together["recorded"][row], abs=1e-5)
    ages = together[[f"age_{k}" for k in range(3)]].to_numpy()
    assert np.allclose(ages.sum(axis=1), 1)
    assert together["group_seen"].tolist() == ages.argmax(axis=1).tolist()


def test_a_film_without_age_goes_where_it_looks_like(folder):
    bundle, films = Bundle.load(folder), random_films(4)
    scores = bundle.score(films, films, [np.nan] * 4)
    assert scores["recorded"].isna().all()
    assert scores["seen"].notna().all()


def test_other_preparation_is_refused(folder):
    bundle = Bundle.load(folder)
    with pytest.raises(PedfracError, match="were prepared as .*'off'"):
        bundle._refuse_other(
            Preparation(size=32, markers="off"), INFO.fracture.preparation, "fracture"
        )


def test_files_are_scored_and_a_broken_one_is_named(folder, tmp_path):
    films = tmp_path / "films"
    films.mkdir()
    write_film(films / "a.png")
    whole = write_film(films / "b.png", 2).read_bytes()
    (films / "b.png").write_bytes(whole[: len(whole) // 2])
    write_film(films / "c.png", 3)
    (tmp_path / "ages.csv").write_text("filestem,age\na,3.5\nc,\n")
    found = find_films([films], read_ages(tmp_path / "ages.csv"))
    scores = predict(Bundle.load(folder), found, batch_size=2)
    scores.index = [film.path.name for film in found]
    assert scores.loc["a.png", "routed_by"] == "age"
    assert scores.loc["a.png", "age_group_used"] == "0-5y"
    assert scores.loc["c.png", "routed_by"] == "film"
    assert "b.png" in scores.loc["b.png", "error"]
    assert scores["probability"].notna().tolist() == [True, False, True]
    expected = np.where(scores["probability"] >= scores["threshold"], "fractured", "normal")
    assert scores.loc["a.png", "call"] == expected[0]


def test_markers_are_taken_out_where_labels_are_given(folder, tmp_path):
    film = write_film(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("8 0.5 0.5 0.4 0.4\n")
    bundle = Bundle.load(folder)
    scores = predict(bundle, [Film(film, 3.0), Film(film, 3.0, tmp_path / "a.txt")])
    assert scores["markers"].tolist() == ["left", "removed"]
    assert scores["probability"].nunique() == 2


@pytest.mark.parametrize("cell", ["x", "-1", "190"])
def test_a_wrong_age_is_named_by_line(tmp_path, cell):
    (tmp_path / "ages.csv").write_text(f"filestem,age\na,3\nb,{cell}\n")
    with pytest.raises(PedfracError, match=f"ages.csv line 3: age '{cell}'"):
        read_ages(tmp_path / "ages.csv")


def test_missing_parts_are_named(folder, tmp_path):
    with pytest.raises(PedfracError, match="is no bundle"):
        Bundle.load(tmp_path)
    (folder / "generalist.safetensors").write_bytes(b"broken")
    with pytest.raises(PedfracError, match="generalist.safetensors: cannot be loaded"):
        Bundle.load(folder)
    with pytest.raises(PedfracError, match="no such file or folder"):
        find_films([tmp_path / "nowhere"])
