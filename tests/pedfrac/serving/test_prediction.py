"""Scores of images from anywhere into a table: whole, the same again, and no image twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dicom_files import SECRETS, write_dicom
from small_bundles import INFO, write_image, write_small_bundle

from pedfrac.bundle.bundle import Bundle, bundle_digest
from pedfrac.bundle.checksums import seal
from pedfrac.bundle.reference_profile import IMAGE
from pedfrac.config.data import Preparation
from pedfrac.config.serving import PredictionConfig
from pedfrac.errors import PedfracError
from pedfrac.imaging.preprocessing import prepare
from pedfrac.pipeline.prediction import predict_images
from pedfrac.serving import prediction
from pedfrac.serving.images import TEXT, Image, find_images, prepare_image, text_boxes
from pedfrac.serving.prediction import NUMBERS, predict, predict_to
from pedfrac.serving.score_table import ScoreFile, read_scores


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_small_bundle(tmp_path_factory.mktemp("networks"))


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    for number in range(4):
        write_image(folder / f"{number}.png", number)
    write_dicom(folder / "deep" / "IM0001", noise(), PatientBirthDate="")
    write_dicom(folder / "deep" / "a.dcm", noise(1))
    (folder / "deep" / "notes.txt").write_text("no image")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


def noise(seed=0):
    pixels = np.random.default_rng(seed).integers(0, 65536, (60, 40), dtype=np.uint16)
    pixels[0, :2] = 0, 65535
    return pixels


def configured(bundle, *images, **more):
    return PredictionConfig(images=tuple(map(str, images)), bundle=str(bundle), **more)


def count_scored(monkeypatch):
    """Return a list of the files that are read from now on."""
    read = []

    def prepare_image(image, **wanted):
        read.append(Path(str(image)).name)
        return original(image, **wanted)

    original = prediction.prepare_image
    monkeypatch.setattr(prediction, "prepare_image", prepare_image)
    return read


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".json"])
def test_a_second_run_reads_no_image_and_leaves_the_same_bytes(
    bundle, images, tmp_path, suffix, monkeypatch
):
    output = tmp_path / f"scores{suffix}"
    config = configured(bundle, images, output=str(output), batch_size=2)
    first, content = predict_images(config), output.read_bytes()
    assert first.in_words() == "6 of 7 images scored, 1 failed"
    read = count_scored(monkeypatch)
    second = predict_images(config)
    assert read == ["broken.png"]
    assert output.read_bytes() == content
    pd.testing.assert_frame_equal(second.rows, first.rows, check_exact=True)
    assert [path.name for path in tmp_path.iterdir() if "scores" in path.name] == [output.name]


def test_only_what_changed_is_scored_again(bundle, images, tmp_path, monkeypatch):
    config = configured(bundle, images, output=str(tmp_path / "scores.csv"))
    before = predict_images(config).rows.set_index("file")["probability"]
    (images / "broken.png").unlink()
    write_image(images / "1.png", 99)
    write_image(images / "new.png", 98)
    (images / "2.png").unlink()
    read = count_scored(monkeypatch)
    after = predict_images(config).rows.set_index("file")["probability"]
    assert sorted(read) == ["1.png", "new.png"]
    assert str(images / "2.png") not in after.index
    assert after[str(images / "1.png")] != before[str(images / "1.png")]
    assert after[str(images / "0.png")] == before[str(images / "0.png")]


def test_another_age_and_another_bundle_are_another_score(bundle, images, tmp_path, monkeypatch):
    table = tmp_path / "images.csv"
    output = {"output": str(tmp_path / "scores.parquet")}
    table.write_text("file,age\nimages/0.png,3\nimages/1.png,12.5\n")
    predict_images(configured(bundle, table, **output))
    table.write_text("file,age\nimages/0.png,3\nimages/1.png,\n")
    read = count_scored(monkeypatch)
    rows = predict_images(configured(bundle, table, **output)).rows
    assert read == ["1.png"] and rows["routed_by"].tolist() == ["age", "image"]
    loaded, listed = Bundle.load(bundle), find_images([table])
    path = Path(output["output"])
    assert predict_to(path, loaded, "f" * 64, listed).total() == 2
    assert read_scores(path)["key"].nunique() == 2
    assert sorted(read) == ["0.png", "1.png", "1.png"]


KILLED = """
import os, signal, sys
from pathlib import Path
from pedfrac.config.serving import PredictionConfig
from pedfrac.pipeline.prediction import predict_images

def stop(done, total):
    if done == 4:
        os.kill(os.getpid(), signal.SIGKILL)

images, bundle, output = sys.argv[1:]
config = PredictionConfig(images=(images,), bundle=bundle, output=output, batch_size=2)
predict_images(config, stop)
"""


def test_a_killed_run_leaves_nothing_half_done_and_is_gone_on_with(
    bundle, images, tmp_path, monkeypatch
):
    output = tmp_path / "scores.parquet"
    arguments = [sys.executable, "-c", KILLED, images, bundle, output]
    done = subprocess.run(arguments, check=False, timeout=300, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not output.exists()
    (tmp_path / "scores.parquet.parts" / "half.new").write_bytes(b"PAR1")
    read = count_scored(monkeypatch)
    config = configured(bundle, images, output=str(output), batch_size=2)
    rows = predict_images(config).rows
    names = sorted(Path(name).name for name in rows["file"])
    # the batch under way when it was killed was kept or not: nothing else is read again
    assert names == ["0.png", "1.png", "2.png", "3.png", "IM0001", "a.dcm", "broken.png"]
    assert 3 <= len(read) <= 5
    fresh = predict(Bundle.load(bundle), find_images([images]))
    assert rows["probability"].to_numpy() == pytest.approx(
        fresh["probability"].to_numpy(), abs=1e-5, nan_ok=True
    )
    assert not (tmp_path / "scores.parquet.parts").exists()


def test_two_runs_do_not_write_one_table(tmp_path):
    path = tmp_path / "scores.csv"
    with (
        ScoreFile(path, NUMBERS).opened(),
        pytest.raises(PedfracError, match="scores.csv: another run is writing it"),
        ScoreFile(path, NUMBERS).opened(),
    ):
        pass


def test_a_table_of_something_else_is_not_overwritten(bundle, images, tmp_path):
    output = tmp_path / "mine.csv"
    output.write_text("a,b\n1,2\n")
    with pytest.raises(PedfracError, match=r"mine.csv: is there, but holds no scores"):
        predict_images(configured(bundle, images, output=str(output)))
    assert output.read_text() == "a,b\n1,2\n"


def test_formats_hold_the_same(bundle, images, tmp_path):
    tables = []
    for suffix in (".parquet", ".csv", ".json"):
        output = tmp_path / f"scores{suffix}"
        predict_images(configured(bundle, images, output=str(output)))
        table = ScoreFile(output, NUMBERS, IMAGE)
        with table.opened():
            # a patient's word is another in each run, and the time may be
            (rows,) = table.pieces(sorted(table.scored()))
            tables.append(rows.drop(columns=["patient", "scored"]))
    for other in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], other, check_exact=True, check_dtype=False)
    told = json.loads((tmp_path / "scores.json").read_text())
    failed = [row for row in told if row["error"]]
    assert len(failed) == 1 and failed[0]["probability"] is None


def test_ages_of_dicom_route_and_doubtful_ones_do_not(bundle, tmp_path):
    write_dicom(tmp_path / "dates.dcm", noise())
    years = {"PatientBirthDate": "", "PatientAge": "004Y"}
    write_dicom(tmp_path / "whole.dcm", noise(), **years)
    write_dicom(tmp_path / "old.dcm", noise(), PatientBirthDate="19800101")
    rows = predict(Bundle.load(bundle), find_images([tmp_path])).set_index(
        [["dates", "old", "whole"]]
    )
    assert rows.loc["dates", ["age", "age_group_used", "routed_by"]].tolist() == [
        *(10.0, "10-19y", "age")
    ]
    assert rows.loc["whole", ["age", "age_group_used", "routed_by", "note"]].tolist() == [
        *(4.0, "0-5y", "age", "")
    ]
    assert rows.loc["old", ["age", "routed_by"]].tolist() == [40.1, "image"]
    assert rows.loc["old", "note"] == "age outside 0-19 years"


def test_an_age_in_whole_years_tells_no_group_where_a_bound_lies_within(tmp_path):
    info = INFO.model_copy(update={"age_bounds": (0, 1.5, 10, 19)})
    loaded = Bundle.load(write_small_bundle(tmp_path, info))
    years = {"PatientBirthDate": "", "PatientAge": "001Y"}
    image = write_dicom(tmp_path / "a.dcm", noise(), **years)
    row = predict(loaded, find_images([image])).iloc[0]
    assert (row["age"], row["routed_by"], row["age_group_recorded"]) == (1.0, "image", "")
    assert row["note"] == "age of 1 whole years may lie on either side of 1.5"


@pytest.mark.parametrize(
    "text, reason",
    [
        ("name\na.png\n", "images.csv: column file is missing"),
        ("file\na.png\na.png\n", "images.csv line 3: a.png is listed twice"),
        ("file,age\na.png,x\n", "images.csv line 2: age 'x' is no number"),
        ("file\ns3://b/a.png\n", "images.csv line 2: file 's3://b/a.png'; allowed is a path"),
    ],
)
def test_wrong_tables_are_refused(tmp_path, text, reason):
    (tmp_path / "images.csv").write_text(text)
    with pytest.raises(PedfracError, match=reason):
        find_images([tmp_path / "images.csv"])


def test_a_listed_image_that_is_missing_does_not_stop_the_others(bundle, images):
    table = images / "images.csv"
    table.write_text("file\n0.png\nnowhere.png\n")
    rows = predict_images(configured(bundle, table)).rows
    missing = images / "nowhere.png"
    reason = f"{missing}: cannot be read (No such file or directory)"
    assert rows["error"].tolist() == ["", reason]


def test_images_and_scores_in_object_storage(
    bundle, images, s3_server, s3_root, bucket, monkeypatch
):
    for path in images.rglob("*"):
        if path.is_file():
            key = f"some/prefix/in/{path.relative_to(images).as_posix()}"
            s3_server.client.upload_file(str(path), bucket, key)
    output = {"output": f"{s3_root}/out/scores.parquet"}
    config = configured(bundle, f"{s3_root}/in", **output)
    rows = predict_images(config).rows
    here = predict(Bundle.load(bundle), find_images([images]))
    names = [f"{s3_root}/in/{Path(name).relative_to(images)}" for name in here["file"]]
    assert rows["file"].tolist() == names
    assert rows["probability"].to_numpy() == pytest.approx(
        here["probability"].to_numpy(), nan_ok=True
    )
    assert rows["error"][rows["error"] != ""].tolist()[0].startswith(f"{s3_root}/in/broken.png: ")
    read = count_scored(monkeypatch)
    again = predict_images(config)
    assert read == ["broken.png"]
    pd.testing.assert_frame_equal(again.rows, rows, check_exact=True)
    one = predict_images(configured(bundle, f"{s3_root}/in/deep/a.dcm")).rows
    assert one["file"].tolist() == [f"{s3_root}/in/deep/a.dcm"]


@pytest.mark.parametrize("markers", [("fill", "fill"), ("fill", "off"), ("inpaint", "inpaint")])
def test_images_are_prepared_as_in_training(tmp_path, markers):
    path, labels = write_image(tmp_path / "a.png"), tmp_path / "a.txt"
    labels.write_text(f"{TEXT} 0.5 0.5 0.2 0.2\n")
    wanted = [
        Preparation(size=size, markers=how) for size, how in zip((32, 24), markers, strict=True)
    ]
    found = prepare_image(Image(path, label_folder=tmp_path), *wanted)
    boxes = text_boxes(labels, (60, 40))
    for image, preparation in zip((found.fracture_image, found.age_image), wanted, strict=True):
        assert image.tolist() == prepare(path, boxes, preparation)[0].tolist()


def test_none_scored_is_an_error_that_counts(bundle, images, tmp_path):
    with pytest.raises(
        PedfracError, match=r"none of 1 images could be scored; the first: .*broken"
    ):
        predict_images(configured(bundle, images / "broken.png"))


@pytest.mark.parametrize("name", ["scores.xlsx", "scores"])
def test_a_wrong_suffix_is_refused_before_anything_is_read(bundle, images, name):
    with pytest.raises(PedfracError, match="allowed suffixes of scores are .parquet, .csv, .json"):
        predict_images(configured(bundle, images, output=name))


def test_the_digest_of_a_bundle_is_that_of_all_its_files(bundle, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    assert bundle_digest(copy) == bundle_digest(bundle)
    with (copy / "age.safetensors").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(PedfracError, match="age.safetensors: is not the file of this bundle"):
        bundle_digest(copy)
    seal(copy, ["age.safetensors"])
    assert bundle_digest(copy) != bundle_digest(bundle)


def test_nothing_tells_of_the_patient(bundle, images, tmp_path):
    """The whole command, by everything it prints and leaves behind but the DICOM output."""
    write_dicom(images / "chest.dcm", noise(), BodyPartExamined="CHEST")
    write_dicom(images / "date.dcm", noise(), PatientBirthDate="2010-02-03")
    damaged = write_dicom(images / "damaged.dcm", noise())
    data = bytearray(damaged.read_bytes())
    data[data.index(b"CS\x02\x00DX") + 2] = 200  # the modality reaches over the patient
    damaged.write_bytes(data)
    output = tmp_path / "scores.csv"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "flows.cli",
            "predict",
            images,
            "-b",
            bundle,
            "-o",
            output,
            "--json",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"PYTHONWARNINGS": "always"},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["summary"] == "7 of 10 images scored, 3 failed"
    assert "chest.dcm: body part CHEST; allowed" in done.stderr
    assert "damaged.dcm: " in done.stderr
    everything = done.stdout + done.stderr + output.read_text()
    assert not [secret for secret in (*SECRETS, "2010-02-03") if secret in everything]
