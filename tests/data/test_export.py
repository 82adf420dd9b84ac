"""Real radiographs through the command line: exported networks score them as PyTorch's do."""

import json
from pathlib import Path

import pandas as pd
import pytest
from commands import pedfrac
from mixed_bundles import mixed_bundle
from small_networks import CONVNEXT, SWIN

from pedfrac.bundle.bundle import read_info
from pedfrac.bundle.onnx_export import labelled_images
from pedfrac.errors import PedfracError

ROOT = Path(__file__).parents[2].parent / "shared" / "data" / "grazpedwri"
LABELS = ROOT / "folder_structure" / "yolov5" / "labels"

pytestmark = pytest.mark.skipif(
    not (ROOT / "images").is_dir(), reason=f"the real images are not at {ROOT / 'images'}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle, and what the command made of it: ``onnx`` and ``int8``, with what it said."""
    folder = tmp_path_factory.mktemp("images")
    mixed_bundle(folder / "bundle", CONVNEXT, SWIN)
    for name, options in (("onnx", []), ("int8", ["--int8"])):
        done = pedfrac(
            *(folder, "export", "bundle", "-o", name, "--check", ROOT, "--json", *options)
        )
        assert done.returncode == 0, done.stderr
        (folder / f"{name}.json").write_text(done.stdout)
    return folder


def said(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def predicted(folder, bundle, runtime):
    ages = pd.read_csv(ROOT / "dataset.csv", encoding="utf-8-sig")[["filestem", "age"]]
    ages.iloc[::2].to_csv(folder / "ages.csv", index=False)  # the others' is seen by the network
    done = pedfrac(
        *(folder, "predict", ROOT / "images", "-b", bundle, "--runtime", runtime),
        *("--ages", "ages.csv", "--labels", LABELS, "--device", "auto", "--json"),
    )
    assert done.returncode == 0, done.stderr
    return pd.DataFrame(json.loads(done.stdout)["images"])


def test_the_command_line_scores_real_images_alike(folder):
    ours, theirs = predicted(folder, "bundle", "torch"), predicted(folder, "onnx", "onnx")
    assert len(ours) == 14 and ours["probability"].nunique() == 14
    assert set(ours["routed_by"]) == {"age", "image"}
    for column in ours:
        if column in ("probability", "generalist"):
            assert (ours[column] - theirs[column]).abs().max() < 1e-4
        else:
            pd.testing.assert_series_equal(ours[column], theirs[column])


def test_the_bundle_is_compared_on_real_images(folder):
    images = said(folder, "onnx")["images"]
    assert (images["images"], images["patients"]) == (14, 14)
    assert 0 < images["networks_differ_at_most"] < 1e-4
    assert images["auroc"]["loss"]["value"] == 0
    assert images["auroc"]["torch"] == images["auroc"]["onnx"]
    assert 0 < images["auroc"]["torch"]["low"] < images["auroc"]["torch"]["high"] < 1


def test_8_bits_tell_what_they_cost(folder):
    images = said(folder, "int8")["images"]
    assert (
        images["networks_differ_at_most"]
        > said(folder, "onnx")["images"]["networks_differ_at_most"]
    )
    auroc = images["auroc"]
    assert auroc["loss"]["value"] == pytest.approx(
        auroc["torch"]["value"] - auroc["onnx"]["value"], abs=1e-12
    )
    assert auroc["loss"]["low"] <= auroc["loss"]["value"] <= auroc["loss"]["high"]


def test_only_named_images_are_compared(folder, tmp_path):
    stems = sorted(path.stem for path in (ROOT / "images").glob("*.png"))[:5]
    (tmp_path / "test.csv").write_text("\n".join(["filestem", *stems]) + "\n")
    info = read_info(folder / "bundle")
    with labelled_images(ROOT, info, tmp_path / "test.csv") as images:
        assert images.fracture.index["filestem"].tolist() == stems
        assert images.fracture.preparation == info.fracture.preparation
        assert images.age.images.shape == (5, SWIN[1], SWIN[1])
    (tmp_path / "test.csv").write_text("filestem\nnone\n")
    refused = pytest.raises(PedfracError, match=r"none of 14 images is named in .*test.csv")
    with refused, labelled_images(ROOT, info, tmp_path / "test.csv"):
        pass


def test_without_labels_it_is_said_that_nothing_was_measured(folder, tmp_path):
    done = pedfrac(folder, "export", "bundle", "-o", tmp_path / "plain", "--int8")
    assert done.returncode == 0, done.stderr
    assert "AUROC lost by the export: not measured" in done.stderr
