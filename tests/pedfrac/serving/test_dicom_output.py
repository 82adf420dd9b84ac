"""Reports and heat maps as DICOM: reopened, of the right study, telling what the table tells."""

import shutil
import subprocess
import sysconfig
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from dicom_files import write_dicom
from pydantic import ValidationError
from pydicom import dcmread
from small_bundles import write_image, write_small_bundle

from pedfrac.bundle.bundle import bundle_digest
from pedfrac.config.serving import PredictionConfig
from pedfrac.errors import PedfracError
from pedfrac.pipeline.prediction import predict_images
from pedfrac.serving.dicom_output import (
    DISCLAIMER,
    FRACTURE,
    MAY_BE_EMPTY,
    PROBABILITY,
    VERDICTS,
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_small_bundle(tmp_path_factory.mktemp("networks"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of three children and a PNG."""
    folder = tmp_path_factory.mktemp("images")
    for number, birth in enumerate(("20190101", "20120101", "20050101")):
        pixels = np.random.default_rng(number).integers(0, 65536, (60, 40), dtype=np.uint16)
        write_dicom(folder / f"{number}.dcm", pixels, PatientBirthDate=birth)
    write_image(folder / "a.png")
    return folder


def config(bundle, images, place):
    return PredictionConfig(
        images=(str(images),),
        bundle=str(bundle),
        output=str(place / "scores.parquet"),
        dicom_out=str(place / "dicom"),
    )


@pytest.fixture(scope="module")
def written(bundle, folder, tmp_path_factory):
    """Rows of the table by file name, and the folder with DICOM output."""
    place = tmp_path_factory.mktemp("out")
    rows = predict_images(config(bundle, folder, place)).rows
    rows.index = [Path(name).name for name in rows["file"]]
    return rows, place / "dicom"


NUMBERS = ["0.dcm", "1.dcm", "2.dcm"]


def test_each_dicom_image_has_both_and_no_other(written):
    rows, out = written
    wanted = {f"{rows['key'][n]}-{kind}.dcm" for n in NUMBERS for kind in ("report", "heat-map")}
    assert {path.name for path in out.iterdir()} == wanted


@pytest.mark.parametrize("name", NUMBERS)
def test_a_report_tells_score_call_and_bundle(written, folder, bundle, name):
    rows, out = written
    row, source = rows.loc[name], dcmread(folder / name)
    report = hd.sr.srread(out / f"{row['key']}-report.dcm")
    assert isinstance(report, hd.sr.EnhancedSR)
    (group,) = report.content.get_image_measurement_groups()
    (probability,) = group.get_measurements(PROBABILITY)
    assert probability.value == pytest.approx(row["probability"], abs=1e-6)
    (call,) = group.get_qualitative_evaluations(FRACTURE)
    assert call.value == VERDICTS[row["call"]]
    assert group.source_images[0].referenced_sop_instance_uid == source.SOPInstanceUID
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    whole = report.to_json()
    assert bundle_digest(bundle) in whole and DISCLAIMER in whole
    assert "Side markers left" in whole


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("kind", ["report", "heat-map"])
def test_both_join_the_study_in_a_series_of_their_own(written, folder, name, kind):
    rows, out = written
    source, made = dcmread(folder / name), dcmread(out / f"{rows['key'][name]}-{kind}.dcm")
    for same in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "StudyDate"):
        assert made[same].value == source[same].value
    for other in ("SeriesInstanceUID", "SOPInstanceUID"):
        assert made[other].value != source[other].value
    assert DISCLAIMER in made.SeriesDescription


@pytest.mark.parametrize("name", NUMBERS)
def test_a_heat_map_names_its_source_and_shows_the_image(written, folder, name):
    rows, out = written
    made = dcmread(out / f"{rows['key'][name]}-heat-map.dcm")
    assert made.ImageType[:2] == ["DERIVED", "SECONDARY"]
    assert (
        made.SourceImageSequence[0].ReferencedSOPInstanceUID
        == dcmread(folder / name).SOPInstanceUID
    )
    pixels = made.pixel_array.astype(int)
    caption, body = pixels[:91], pixels[91:]
    assert caption.max() == 255  # words
    half = body.shape[1] // 2
    assert body[:, :half].std() > 10
    assert (np.ptp(body[:, :half], axis=2) == 0).all(), "the image alone is grey"


def test_a_second_run_writes_nothing_and_one_that_lost_a_file_writes_it(bundle, folder, tmp_path):
    first = predict_images(config(bundle, folder, tmp_path))
    paths = sorted((tmp_path / "dicom").iterdir())
    times, uid = [path.stat().st_mtime_ns for path in paths], dcmread(paths[0]).SOPInstanceUID
    predict_images(config(bundle, folder, tmp_path))
    assert [path.stat().st_mtime_ns for path in paths] == times
    paths[0].unlink()
    again = predict_images(config(bundle, folder, tmp_path))
    assert dcmread(paths[0]).SOPInstanceUID == uid
    assert again.rows["probability"].tolist() == pytest.approx(first.rows["probability"].tolist())


def test_a_source_without_a_study_is_scored_and_named(bundle, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (60, 40), dtype=np.uint16)
    (tmp_path / "images").mkdir()
    path = write_dicom(tmp_path / "images" / "a.dcm", pixels, StudyInstanceUID=None)
    done = predict_images(config(bundle, path, tmp_path))
    assert done.without_dicom == {str(path): "it lacks StudyInstanceUID"}
    assert done.in_words() == "1 of 1 images scored, 1 scored without DICOM output"
    assert done.rows["error"].tolist() == [""]


@pytest.mark.parametrize("all_at_once", [False, True])
def test_elements_that_may_be_empty_are_written_empty(bundle, tmp_path, all_at_once):
    pixels = np.random.default_rng(0).integers(0, 65536, (60, 40), dtype=np.uint16)
    groups = [MAY_BE_EMPTY] if all_at_once else [[name] for name in MAY_BE_EMPTY]
    (tmp_path / "in").mkdir()
    for number, names in enumerate(groups):
        write_dicom(tmp_path / "in" / f"{number}.dcm", pixels, **dict.fromkeys(names))
    done = predict_images(config(bundle, tmp_path / "in", tmp_path))
    assert done.without_dicom == {}
    for key, names in zip(done.rows["key"], groups, strict=True):
        for kind in ("report", "heat-map"):
            made = dcmread(tmp_path / "dicom" / f"{key}-{kind}.dcm")
            assert [(name in made, str(made[name].value or "")) for name in names] == [
                (True, "")
            ] * len(names)


def test_dicom_output_needs_a_table():
    with pytest.raises(ValidationError, match="dicom_out needs output"):
        PredictionConfig(images=("images",), bundle="bundle", dicom_out="dicom")


def test_the_command_line_validator_of_the_standard_finds_no_fault(written):
    program = shutil.which("dciodvfy", path=sysconfig.get_path("scripts"))
    assert program, "dciodvfy is not installed (pip install '.[dev]')"
    for path in written[1].iterdir():
        done = subprocess.run([program, path], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "Error" not in done.stdout + done.stderr, done.stderr


def test_an_unwritable_folder_is_an_error(bundle, folder, tmp_path):
    (tmp_path / "dicom").write_text("a file")
    with pytest.raises(PedfracError, match="dicom: cannot be made"):
        predict_images(config(bundle, folder, tmp_path))
