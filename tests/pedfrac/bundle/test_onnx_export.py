"""Exported networks answer as PyTorch's do, whatever their kind and head, or are refused."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from mixed_bundles import mixed_bundle
from small_networks import CONVNEXT, SWIN, noise

from pedfrac.bundle.bundle import Bundle, bundle_digest
from pedfrac.bundle.checksums import seal
from pedfrac.bundle.onnx_export import export_onnx
from pedfrac.bundle.onnx_runtime import OnnxNetwork, read_export
from pedfrac.errors import PedfracError

AGES = [1, 4, 7, 9, 12, 19, np.nan]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle with Swin for fractures and ConvNeXt V2 for the age, exported."""
    folder = tmp_path_factory.mktemp("made")
    bundle = mixed_bundle(folder / "bundle", SWIN, CONVNEXT, "ordinal", views="mirrored")
    export_onnx(bundle, folder / "onnx")
    return folder


@pytest.fixture
def exported(made, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(made / "onnx", tmp_path / "onnx")


def scores(bundle, ages=AGES):
    info = bundle.info
    images = [noise(len(ages), part.preparation.size) for part in (info.fracture, info.age)]
    return bundle.score(*images, ages, specialists="every")


def assert_alike(folder, other):
    ours, theirs = scores(Bundle.load(folder)), scores(Bundle.load(other, runtime="onnx"))
    assert list(ours) == list(theirs)
    said = ours.filter(regex="^(network|age)_")
    assert said.nunique().min() > 3  # answers that do not hang on the image could not differ
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


def test_a_swin_and_ordinal_ages_answer_alike(made):
    assert_alike(made / "bundle", made / "onnx")
    assert "age_seen" in scores(Bundle.load(made / "onnx", runtime="onnx"))


def test_a_convnext_and_regressed_ages_answer_alike(tmp_path):
    bundle = mixed_bundle(tmp_path / "bundle", CONVNEXT, CONVNEXT, "regression")
    info = export_onnx(bundle, tmp_path / "onnx")
    assert_alike(bundle, tmp_path / "onnx")
    assert info.checks.keys() == {path.stem for path in (tmp_path / "onnx").glob("*.onnx")}
    assert all(0 < check["probabilities"] < 1e-4 for check in info.checks.values())
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("pooled", [True, False])
def test_finding_maps_are_exported_as_far_as_probabilities_need_them(tmp_path, pooled):
    maps = {"classes": ["fracture", "metal"], "stride": 8, "pooled": pooled}
    bundle = mixed_bundle(tmp_path / "bundle", CONVNEXT, CONVNEXT, maps=maps)
    export_onnx(bundle, tmp_path / "onnx")
    assert_alike(bundle, tmp_path / "onnx")
    names = {one.name for one in onnx.load(tmp_path / "onnx" / "generalist.onnx").graph.initializer}
    assert any("maps" in name for name in names) == pooled


def test_networks_are_the_standards(made):
    for path in (made / "onnx").glob("*.onnx"):
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert [one.version for one in model.opset_import if one.domain == ""] == [
            read_export(made / "onnx").opset
        ]


@pytest.mark.parametrize("count", [0, 1, 5, 65])
def test_any_number_of_images_is_taken(made, count):
    bundle = Bundle.load(made / "onnx", runtime="onnx")
    found = scores(bundle, np.linspace(0, 19, count))
    assert len(found) == count and np.isfinite(found.drop(columns="group")).all(axis=None)


def test_8_bits_are_smaller_and_said(made, tmp_path):
    info = export_onnx(made / "bundle", tmp_path / "onnx", int8=True)
    assert info.precision == "int8" and "not measured" in info.images["reason"]
    check, whole = info.checks["generalist"], read_export(made / "onnx").checks["generalist"]
    assert check["share_in_8_bits"] > 0.5 and check["megabytes"] < whole["megabytes"]
    assert whole["probabilities"] < check["probabilities"]
    ours, theirs = (
        scores(Bundle.load(made / "bundle")),
        scores(Bundle.load(tmp_path / "onnx", runtime="onnx")),
    )
    far = (ours["network_generalist"] - theirs["network_generalist"]).abs().max()
    assert 1e-6 < far < 0.1


def test_a_network_that_answers_otherwise_is_not_left(made, tmp_path, monkeypatch):
    def wrong(traced, weights):
        take(traced, {name: weight * 1.01 for name, weight in weights.items()})

    take = torch.onnx.ONNXProgram.apply_weights
    monkeypatch.setattr(torch.onnx.ONNXProgram, "apply_weights", wrong)
    with pytest.raises(PedfracError, match=r"age.onnx: its answers differ .* allowed are 0.0001"):
        export_onnx(made / "bundle", tmp_path / "onnx")
    assert not list(tmp_path.iterdir())


def test_another_networks_file_is_refused(made, exported):
    assert bundle_digest(exported) == bundle_digest(made / "onnx") != bundle_digest(made / "bundle")
    shutil.copyfile(exported / "specialist-5-10y.onnx", exported / "generalist.onnx")
    refusal = r"generalist.onnx: is not the file of this bundle: .* of specialist-5-10y.onnx"
    for use in (bundle_digest, lambda folder: Bundle.load(folder, runtime="onnx")):
        with pytest.raises(PedfracError, match=refusal):
            use(exported)


def test_a_broken_file_is_refused(exported):
    path = exported / "age.onnx"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(PedfracError, match=r"age.onnx: is not the file of this bundle"):
        Bundle.load(exported, runtime="onnx")
    with pytest.raises(PedfracError, match=r"age.onnx: cannot be loaded as ONNX"):
        OnnxNetwork(path, 64, 3, True)
    path.unlink()
    with pytest.raises(PedfracError, match=r"age.onnx: is missing"):
        Bundle.load(exported, runtime="onnx")


@pytest.mark.parametrize("asked", [(32, 3, True), (64, 4, True), (64, 3, False)])
def test_a_network_of_other_images_or_answers_is_refused(exported, asked):
    with pytest.raises(PedfracError, match=r"age.onnx: is not the network"):
        OnnxNetwork(exported / "age.onnx", *asked)


def test_what_is_not_there_is_named(made, exported):
    with pytest.raises(PedfracError, match="holds no export.json"):
        Bundle.load(made / "bundle", runtime="onnx")
    with pytest.raises(PedfracError, match=r"age.safetensors: is missing"):
        Bundle.load(exported)
    with pytest.raises(PedfracError, match="onnx: is there already"):
        export_onnx(made / "bundle", exported)
    with pytest.raises(PedfracError, match="run on the CPU alone"):
        Bundle.load(exported, "cuda", runtime="onnx")
    with pytest.raises(PedfracError, match="do not show their features"):
        Bundle.load(exported, runtime="onnx").chosen(0)
    (exported / "export.json").write_text(json.dumps({"precision": "int4"}))
    with pytest.raises(PedfracError, match=r"export.json: is not the file of this bundle"):
        Bundle.load(exported, runtime="onnx")
    seal(exported, ["export.json"])
    with pytest.raises(PedfracError, match=r"export.json: .*int4"):
        Bundle.load(exported, runtime="onnx")
