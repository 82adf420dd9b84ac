"""Checksums: each file of a bundle is the one that was sealed, whoever reads it."""

import json
import shutil
import subprocess

import pytest
from small_bundles import INFO, write_image, write_random_bundle

from pedfrac.bundle import checksums
from pedfrac.bundle.bundle import Bundle, bundle_digest
from pedfrac.bundle.checksums import SUMS, seal, verify
from pedfrac.bundle.onnx_export import export_onnx
from pedfrac.config.monitoring import MonitorConfig
from pedfrac.config.serving import PredictionConfig
from pedfrac.errors import PedfracError
from pedfrac.pipeline.monitoring import monitor_window
from pedfrac.pipeline.prediction import predict_images
from pedfrac.serving.service import Served


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two bundles of networks of the same shapes and other weights."""
    root = tmp_path_factory.mktemp("bundles")
    return [write_random_bundle(root / str(seed), INFO, seed) for seed in (0, 10)]


@pytest.fixture
def bundle(two, tmp_path):
    return shutil.copytree(two[0], tmp_path / "bundle")


def predict(folder):
    image = write_image(folder.parent / "a.png")
    return predict_images(PredictionConfig(images=(str(image),), bundle=str(folder)))


def test_weights_of_another_network_of_the_same_shape_are_refused_by_name(two, bundle, tmp_path):
    shutil.copyfile(two[1] / "generalist.safetensors", bundle / "generalist.safetensors")
    said = rf"generalist.safetensors: is not the file of this bundle: its SHA-256 is .*{SUMS} says"
    readers = (
        *(Bundle.load, bundle_digest, predict, lambda folder: Served.load(folder, "cpu")),
        lambda folder: export_onnx(folder, tmp_path / "onnx"),
    )
    for read in readers:
        with pytest.raises(PedfracError, match=said):
            read(bundle)


def test_two_networks_that_changed_places_are_named(bundle):
    young, old = (bundle / f"specialist-{name}.safetensors" for name in ("0-5y", "5-10y"))
    young.rename(bundle / "kept")
    old.rename(young)
    (bundle / "kept").rename(old)
    with pytest.raises(PedfracError, match=r"0-5y.safetensors: .*content is that of .*5-10y.safe"):
        Bundle.load(bundle)


def test_a_changed_description_is_refused(bundle):
    """A threshold in bundle.json decides calls as much as weights do."""
    info = json.loads((bundle / "bundle.json").read_text())
    info["scorers"]["bundle"]["thresholds"] = [0.9, 0.9, 0.9]
    (bundle / "bundle.json").write_text(json.dumps(info))
    with pytest.raises(PedfracError, match=r"bundle.json: is not the file of this bundle"):
        predict(bundle)


def test_a_profile_of_another_bundle_is_refused_by_monitoring(bundle):
    for name in ("profile.json", "profile.safetensors"):
        (bundle / name).write_bytes(b"{}")
    config = MonitorConfig(scores=("scores.csv",), bundle=str(bundle))
    with pytest.raises(PedfracError, match=r"profile.safetensors: is foreign"):
        monitor_window(config)


def test_a_bundle_without_checksums_is_refused(bundle):
    (bundle / SUMS).unlink()
    with pytest.raises(PedfracError, match=f"holds no {SUMS}.*assemble it anew"):
        Bundle.load(bundle)


@pytest.mark.parametrize("line", ["abc  age.safetensors", "", "0" * 64 + "  bundle.json"])
def test_a_broken_list_of_checksums_is_named_by_line(bundle, line):
    lines = (bundle / SUMS).read_text().splitlines()
    (bundle / SUMS).write_text("\n".join([*lines, line, "x"]))
    with pytest.raises(PedfracError, match=f"{SUMS} line {len(lines) + 1}: '{line}' must be"):
        Bundle.load(bundle)


def test_standard_tools_read_the_checksums(bundle):
    done = subprocess.run(["sha256sum", "-c", SUMS], cwd=bundle, capture_output=True, text=True)
    assert done.returncode == 0 and "generalist.safetensors: OK" in done.stdout


def test_a_file_is_read_once_while_it_stays_as_it_is(bundle, monkeypatch):
    read = []

    def counted(path):
        read.append(path.name)
        return hash_of(path)

    hash_of = checksums.file_hash
    monkeypatch.setattr(checksums, "file_hash", counted)
    Bundle.load(bundle)
    bundle_digest(bundle)
    assert sorted(read) == sorted(set(read)) and "age.safetensors" in read
    content = (bundle / "age.safetensors").read_bytes()
    (bundle / "age.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(PedfracError, match="age.safetensors: is not the file"):
        bundle_digest(bundle)


def test_sealing_keeps_what_was_sealed_before(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        seal(tmp_path, [name])
    assert list(verify(tmp_path, ["a", "b"])) == ["a", "b"]
