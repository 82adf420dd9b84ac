"""From images to what has changed: profile, scores, window and step, on phantoms, by a bundle."""

import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from dicom_files import SECRETS, write_dicom
from small_bundles import INFO, write_image, write_small_bundle
from typer.testing import CliRunner

from pedfrac import pipeline
from pedfrac.bundle.bundle import Bundle, bundle_digest
from pedfrac.bundle.checksums import seal
from pedfrac.bundle.reference_profile import (
    ABOUT,
    CATEGORIES,
    CONTINUOUS,
    NUMBERS,
    load_profile,
    save_profile,
)
from pedfrac.config.data import DataConfig
from pedfrac.config.monitoring import MonitorConfig
from pedfrac.config.phantoms import PhantomConfig
from pedfrac.config.serving import PredictionConfig
from pedfrac.data.records import read_records
from pedfrac.errors import PedfracError
from pedfrac.monitoring.profile_builder import make_profile
from pedfrac.monitoring.time_windows import read_window
from pedfrac.packs.build import build_pack
from pedfrac.packs.pack import Pack
from pedfrac.phantoms.dataset import write_phantoms
from pedfrac.pipeline.prediction import predict_images


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A bundle with a profile of half of the patients, and a table of the images of the others."""
    folder = tmp_path_factory.mktemp("world")
    write_phantoms(folder / "data", PhantomConfig(images=260, scale=0.2, workers=1))
    records = read_records(DataConfig(root=str(folder / "data")), workers=1)
    (folder / "pack").mkdir()
    preparation = INFO.fracture.preparation
    build_pack(folder / "pack", records.table, records.boxes, folder / "data", preparation, 1)
    pack = Pack.open(folder / "pack")
    bundle = write_small_bundle(folder)
    patients = np.random.default_rng(0).permutation(pack.index["patient_id"].unique())
    parts = np.split(patients, [len(patients) // 2, 3 * len(patients) // 4])
    reference, new, training = (pack.index[pack.index["patient_id"].isin(one)] for one in parts)
    stems = [one["filestem"].tolist() for one in (reference, training)]
    profile = make_profile(Bundle.load(bundle), pack, pack, *stems)
    save_profile(bundle, profile)
    new = new.assign(file=[str(folder / "data" / image) for image in new["image"]])
    return folder, bundle, profile, new.rename(columns={"patient_id": "patient"})


def score(world, folder, change=lambda image: image):
    """Score the new images, as they are or changed; return the table of scores."""
    root, bundle, _, new = world
    listed = []
    for path in new["file"]:
        image = cv2.imread(path, cv2.IMREAD_UNCHANGED).astype(np.float32)
        listed.append(str(folder / path.rsplit("/", 1)[1]))
        cv2.imwrite(listed[-1], change(image).clip(0, 65535).astype(np.uint16))
    new.assign(file=listed)[["file", "age", "patient"]].to_csv(folder / "images.csv", index=False)
    labels = root / "data/folder_structure/yolov5/labels"
    output = folder / "scores.parquet"
    given = {"images": (str(folder / "images.csv"),), "bundle": str(bundle), "labels": str(labels)}
    predict_images(PredictionConfig(**given, output=str(output)))
    return output


def monitor(world, folder, scores, **more):
    places = {"artifacts": str(folder / "artifacts"), "output": str(folder / "drift")}
    rules = {"false_alarm_rate": 0.05, "draws": 499}
    return MonitorConfig(scores=(str(scores),), bundle=str(world[1]), **places, **rules | more)


def test_a_profile_is_read_as_it_was_written_and_names_nobody(world):
    _, bundle, profile, _ = world
    again = load_profile(bundle)
    columns = [*CONTINUOUS, *CATEGORIES, "patient", "fractured", *profile.features]
    pd.testing.assert_frame_equal(again.images[columns], profile.images[columns], check_dtype=False)
    np.testing.assert_array_equal(again.basis.components, profile.basis.components)
    assert profile.features and np.isfinite(profile.images[profile.features].to_numpy()).all()
    assert profile.images["patient"].max() + 1 == profile.about["patients"]
    written = (bundle / ABOUT).read_bytes() + (bundle / NUMBERS).read_bytes()
    stems = read_records(DataConfig(root=str(world[0] / "data"), images=False)).table["filestem"]
    assert not any(stem.encode() in written for stem in stems)


def test_scores_and_profile_describe_a_image_alike(world, tmp_path):
    """The same images, once from a pack and once as at work."""
    root, bundle, _, new = world
    pack = Pack.open(root / "pack")
    rows = pd.read_parquet(score(world, tmp_path))
    stems = [path.rsplit("/", 1)[1].removesuffix(".png") for path in rows["file"]]
    training = [stem for stem in pack.index["filestem"] if stem not in stems]
    found = make_profile(Bundle.load(bundle), pack, pack, stems, training)
    numbers = ["age", "probability", *(name for name in CONTINUOUS if name.startswith("image_"))]
    ours, theirs = (
        frame[numbers].sort_values(numbers).reset_index(drop=True) for frame in (rows, found.images)
    )
    pd.testing.assert_frame_equal(ours, theirs, check_dtype=False, rtol=1e-4)
    assert (
        rows["patient"].nunique() == found.images["patient"].nunique() == new["patient"].nunique()
    )


def test_equal_images_have_not_changed_and_another_scanner_is_named(world, tmp_path):
    (tmp_path / "equal").mkdir(), (tmp_path / "other").mkdir()
    equal = pipeline.monitor_window(monitor(world, tmp_path, score(world, tmp_path / "equal")))
    assert equal.verdict == "no change found" and not equal.drifted

    def scanner(image):
        smaller = cv2.resize(image, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
        return smaller.mean() + 0.6 * (smaller - smaller.mean())

    scores = score(world, tmp_path / "other", scanner)
    new = pd.read_parquet(scores)
    labels = tmp_path / "labels.csv"
    pd.DataFrame({"file": new["file"], "fractured": np.arange(len(new)) % 2}).to_csv(labels)
    config = monitor(world, tmp_path, scores, labels=str(labels))
    other = pipeline.monitor_window(config)
    assert other.verdict == "changed"
    assert {"image_contrast", "image_long_side"} <= set(other.drifted)
    assert "images of less contrast" in other.said and "images of fewer pixels" in other.said
    left = json.loads((tmp_path / "drift" / "drift.json").read_text())
    assert left == pipeline.drift_findings(config, other)
    assert left["window"]["patients"] == new["patient"].nunique()
    assert left["performance"]["auroc"]["window"]["low"] is not None
    assert "Images of less contrast" in (tmp_path / "drift" / "drift.html").read_text()
    assert pipeline.monitor_window(config) == other  # the artifact that is there


def test_a_window_is_of_its_time_and_of_its_bundle(world, tmp_path):
    _, bundle, profile, _ = world
    rows = pd.read_parquet(score(world, tmp_path))
    half = len(rows) // 2
    rows["scored"] = ["2025-03-01T08:00:00+00:00"] * half + ["2025-03-09T08:00:00+00:00"] * (
        len(rows) - half
    )
    rows.loc[0, "bundle"], rows.loc[1, "error"] = "0" * 16, "broken"
    rows.to_csv(tmp_path / "scores.csv", index=False)
    digest = bundle_digest(bundle)

    def images(**more):
        config = monitor(world, tmp_path, tmp_path / "scores.csv", **more)
        return read_window(config, digest, profile.features)

    whole = images()
    assert len(whole.images) == len(rows) - 2 and whole.known
    assert whole.counts == {"without a score": 1, "by another bundle": 1}
    assert len(images(since="2025-03-05").images) == len(rows) - half
    assert len(images(until="2025-03-05T00:00+01:00").images) == half - 2
    assert len(images(last_days=1).images) == 0
    with pytest.raises(PedfracError, match="since 'yesterday': must be a date"):
        images(since="yesterday")
    rows.assign(bundle="f" * 16).to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(PedfracError, match="images were scored by another bundle"):
        images()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,fractured\na.png,maybe\n", "line 2: fractured 'maybe'; allowed are 1, 0"),
        ("file,fractured\na.png,1\na.png,0\n", "line 3: a.png is listed twice"),
        ("file,fractured\na.png,1\n", "labels none of the"),
        ("file\na.png\n", "column fractured is missing"),
    ],
)
def test_labels_that_are_wrong_are_named(world, tmp_path, content, message):
    (tmp_path / "labels.csv").write_text(content)
    labels = str(tmp_path / "labels.csv")
    config = monitor(world, tmp_path, score(world, tmp_path), labels=labels)
    with pytest.raises(PedfracError, match=message):
        read_window(config, bundle_digest(world[1]), [])


def test_bundles_without_a_profile_score_and_cannot_be_compared_with(world, tmp_path):
    (tmp_path / "old").mkdir()
    bundle = shutil.copytree(world[1], tmp_path / "bundle")
    (bundle / ABOUT).unlink()
    image = write_image(tmp_path / "old" / "image.png")
    output = tmp_path / "scores.csv"
    done = predict_images(
        PredictionConfig(images=(str(image),), bundle=str(bundle), output=str(output))
    )
    assert not done.failed and "image_brightness" in done.rows
    with pytest.raises(PedfracError, match="made without a reference profile"):
        pipeline.monitor_window(monitor((0, bundle), tmp_path, output))
    (world[0] / "none").mkdir(exist_ok=True)
    shutil.copy(world[1] / ABOUT, bundle / ABOUT)
    (bundle / NUMBERS).write_bytes(b"broken")
    with pytest.raises(PedfracError, match=f"{NUMBERS}: is not the file of this bundle"):
        load_profile(bundle)
    seal(bundle, [NUMBERS])
    with pytest.raises(PedfracError, match="its reference profile cannot be read"):
        load_profile(bundle)


def test_images_of_one_patient_share_a_word_that_tells_nobody(world, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (60, 40), dtype=np.uint16)
    write_dicom(tmp_path / "a.dcm", pixels)
    write_dicom(tmp_path / "b.dcm", pixels + 1)
    write_dicom(tmp_path / "c.dcm", pixels, PatientID="PAT-4712", PatientSex="F")
    words = []
    for name in ("first.csv", "second.csv"):
        given = {"images": (str(tmp_path),), "bundle": str(world[1])}
        predict_images(PredictionConfig(**given, output=str(tmp_path / name)))
        text = (tmp_path / name).read_text()
        assert not any(secret in text for secret in (*SECRETS, "PAT-4712"))
        rows = pd.read_csv(tmp_path / name).set_index("file")
        words.append(
            [rows.loc[str(tmp_path / image), "patient"] for image in ("a.dcm", "b.dcm", "c.dcm")]
        )
        assert rows["sex"].tolist() == ["M", "M", "F"]
    for a, b, c in words:
        assert a == b != c
    assert not set(words[0]) & set(words[1])


def test_the_command_refuses_wrong_input_in_one_line(world, tmp_path):
    from flows.cli.app import app

    for arguments, message in (
        (["none.parquet"], "none.parquet"),
        (["a.csv", "--since", "2025-01-01", "--last-days", "2"], "either since or last_days"),
        (["a.csv", "--rate", "2"], "false_alarm_rate"),
    ):
        done = CliRunner().invoke(app, ["monitor", *arguments, "-b", str(world[1])])
        assert isinstance(done.exception, PedfracError)
        assert message in str(done.exception) and "\n" not in str(done.exception)
