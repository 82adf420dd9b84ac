"""A bundle of tiny networks: what it routes, refuses and predicts from files."""

import numpy as np
import pytest
import torch
from small_bundles import INFO, write_image, write_small_bundle

from pedfrac.bundle.bundle import Bundle
from pedfrac.bundle.checksums import seal
from pedfrac.config.data import Preparation
from pedfrac.config.training import MapShape
from pedfrac.errors import PedfracError
from pedfrac.serving.images import Image, find_images, read_ages
from pedfrac.serving.prediction import predict


@pytest.fixture
def folder(tmp_path):
    """A bundle of random networks, all different."""
    return write_small_bundle(tmp_path)


def random_images(count=6):
    return np.random.default_rng(1).integers(0, 256, (count, 32, 32), dtype=np.uint8)


def test_recorded_age_chooses_the_networks(folder):
    bundle, images = Bundle.load(folder), random_images(3)
    together = bundle.score(images, images, [1, 7, 19], specialists="every")
    assert together["group"].tolist() == [0, 1, 2]
    common, own = together["network_generalist"], np.diag(together.filter(regex=r"^network_\d"))
    assert together["bundle"].tolist() == pytest.approx(
        [own[0], (own[1] + common[1]) / 2, common[2]]
    )
    assert together["specialist"].tolist() == pytest.approx(list(own))
    known = bundle.probability(images, together["group"].to_numpy())
    assert together["bundle"].tolist() == pytest.approx(known.tolist())
    for row, age in enumerate([1, 7, 19]):
        alone = bundle.score(images[row : row + 1], images[row : row + 1], [age])
        assert alone["bundle"][0] == pytest.approx(together["bundle"][row], abs=1e-5)
    ages = together[[f"age_{k}" for k in range(3)]].to_numpy()
    assert np.allclose(ages.sum(axis=1), 1)
    assert together["group_seen"].tolist() == ages.argmax(axis=1).tolist()


def test_only_networks_that_are_needed_are_asked_and_say_the_same(folder):
    bundle, images = Bundle.load(folder), random_images(6)
    ages = [1, 7, 19, 3, np.nan, np.nan]
    whole = bundle.score(images, images, ages, specialists="every")
    needed = bundle.score(images, images, ages, specialists="needed")
    used = whole["group"].where(whole["group"] >= 0, whole["group_seen"])
    for group, choice in enumerate(INFO.scorers["bundle"].choices):
        asked = needed[f"network_{group}"].notna()
        assert asked.tolist() == ((used == group) & (choice != "generalist")).tolist()
    known = whole["group"] >= 0
    for name, some in (("bundle", known), ("seen", ~known), ("generalist", known | ~known)):
        assert needed.loc[some, name].tolist() == pytest.approx(whole.loc[some, name], abs=1e-6)


@pytest.mark.parametrize("views", ["one", "mirrored"])
@pytest.mark.parametrize("head", ["ordinal", "regression"])
def test_an_age_is_estimated_where_the_head_does(tmp_path, head, views):
    info = INFO.model_copy(update={"age_head": head, "views": views})
    bundle, images = Bundle.load(write_small_bundle(tmp_path, info)), random_images()
    scores = bundle.score(images, images, [1, 4, 7, 9, 12, 19])
    assert scores["age_seen"].between(0, 19).all() and scores["age_seen"].nunique() > 2
    ages = scores[[f"age_{k}" for k in range(3)]].to_numpy()
    assert np.allclose(ages.sum(axis=1), 1, atol=1e-5)
    assert scores["group_seen"].tolist() == ages.argmax(axis=1).tolist()


def test_a_image_without_age_goes_where_it_looks_like(folder):
    bundle, images = Bundle.load(folder), random_images(4)
    scores = bundle.score(images, images, [np.nan] * 4)
    assert scores["bundle"].isna().all()
    assert scores["seen"].notna().all()


def test_other_preparation_is_refused(folder):
    bundle = Bundle.load(folder)
    with pytest.raises(PedfracError, match="were prepared as .*'off'"):
        bundle._refuse_other(
            Preparation(size=32, markers="off"), INFO.fracture.preparation, "fracture"
        )


def test_files_are_scored_and_a_broken_one_is_named(folder, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    write_image(images / "a.png")
    whole = write_image(images / "b.png", 2).read_bytes()
    (images / "b.png").write_bytes(whole[: len(whole) // 2])
    write_image(images / "c.png", 3)
    (tmp_path / "ages.csv").write_text("filestem,age\na,3.5\nc,\n")
    found = find_images([images], read_ages(tmp_path / "ages.csv"))
    scores = predict(Bundle.load(folder), found, batch_size=2)
    scores.index = [image.path.name for image in found]
    assert scores.loc["a.png", "routed_by"] == "age"
    assert scores.loc["a.png", "age_group_used"] == "0-5y"
    assert scores.loc["c.png", "routed_by"] == "image"
    assert "b.png" in scores.loc["b.png", "error"]
    assert scores["probability"].notna().tolist() == [True, False, True]
    expected = np.where(scores["probability"] >= scores["threshold"], "fractured", "normal")
    assert scores.loc["a.png", "call"] == expected[0]
    assert scores.loc["a.png", "network"] == "specialist"


def test_images_between_the_bounds_are_left_to_a_reader(folder, tmp_path):
    scores = predict(Bundle.load(folder), [Image(write_image(tmp_path / "a.png"), 18.0)])
    assert scores["call"].tolist() == ["left to a reader"]


def test_mirrored_views_are_averaged(folder):
    bundle, images = Bundle.load(folder), random_images(3)
    mirrored = Bundle(bundle.info.model_copy(update={"views": "mirrored"}), bundle.networks, "cpu")
    plain, turned = (bundle.score(one, one, [7] * 3) for one in (images, images[..., ::-1].copy()))
    mean = (plain["network_1"] + turned["network_1"]) / 2
    assert mirrored.score(images, images, [7] * 3)["network_1"].tolist() == pytest.approx(
        mean.tolist(), abs=1e-5
    )


def test_markers_are_taken_out_where_labels_are_given(folder, tmp_path):
    image = write_image(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("8 0.5 0.5 0.4 0.4\n")
    bundle = Bundle.load(folder)
    scores = predict(bundle, [Image(image, 3.0), Image(image, 3.0, tmp_path)])
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
    with pytest.raises(PedfracError, match="generalist.safetensors: is not the file of this"):
        Bundle.load(folder)
    seal(folder, ["generalist.safetensors"])
    with pytest.raises(PedfracError, match="generalist.safetensors: cannot be loaded"):
        Bundle.load(folder)
    with pytest.raises(PedfracError, match="no such file or folder"):
        find_images([tmp_path / "nowhere"])


def test_a_bundle_keeps_its_finding_maps(tmp_path):
    maps = MapShape(classes=("fracture", "metal"), stride=8, pooled=True)
    fracture = INFO.fracture.model_copy(update={"maps": maps})
    info = INFO.model_copy(update={"fracture": fracture})
    bundle = Bundle.load(write_small_bundle(tmp_path, info))
    assert bundle.info.fracture.maps == maps
    images = torch.rand(2, 1, 32, 32)
    for name, network in bundle.networks.items():
        found = network.look(images)[1]
        assert (found is None) == (name == "age")
        assert name == "age" or found.shape == (2, 2, 4, 4)
