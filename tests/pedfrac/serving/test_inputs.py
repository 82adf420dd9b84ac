"""What goes in is what was meant: told by content, read by one parser, nothing left out unsaid."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from dicom_files import write_dicom
from image_files import encode
from small_bundles import write_image, write_small_bundle

from pedfrac.config.data import DataConfig
from pedfrac.config.serving import PredictionConfig
from pedfrac.data.layout import fingerprint
from pedfrac.errors import PedfracError
from pedfrac.pipeline.prediction import predict_images
from pedfrac.serving.images import NoImage, find_images
from pedfrac.serving.score_table import as_records, read_scores
from pedfrac.storage.files import file_stamp

LATIN = os.fsdecode(b"caf\xe9")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_small_bundle(tmp_path_factory.mktemp("networks"))


def score(bundle, images, output=None, **more):
    given = {"output": str(output)} if output else {}
    return predict_images(
        PredictionConfig(images=(str(images),), bundle=str(bundle), **given, **more)
    )


def noise(seed=0):
    pixels = np.random.default_rng(seed).integers(0, 65536, (60, 40), dtype=np.uint16)
    pixels[0, :2] = 0, 65535
    return pixels


WRITERS = {
    "a.png": lambda path, seed: path.write_bytes(cv2.imencode(".png", noise(seed))[1]),
    "a.jpg": lambda path, seed: path.write_bytes(
        encode((noise(seed) >> 8).astype(np.uint8), ".jpg")
    ),
    "a.dcm": lambda path, seed: write_dicom(path, noise(seed)),
}


# ---- identity ---------------------------------------------------------------------------------


@pytest.mark.parametrize("replaced", [False, True], ids=["overwritten", "replaced"])
@pytest.mark.parametrize("name", WRITERS)
def test_other_bytes_of_one_name_size_and_time_are_scored_anew(bundle, tmp_path, name, replaced):
    path, other = tmp_path / "in" / name, tmp_path / name
    path.parent.mkdir()
    WRITERS[name](path, 0)
    WRITERS[name](other, 1)
    size = max(path.stat().st_size, other.stat().st_size)
    for one in (path, other):
        one.write_bytes(one.read_bytes().ljust(size, b"\0"))  # what follows the end counts nothing
        os.utime(one, (10**9, 10**9))
    first = score(bundle, path, tmp_path / "scores.csv").rows
    if replaced:
        other.replace(path)
    else:
        path.write_bytes(other.read_bytes())
        os.utime(path, (10**9, 10**9))
    assert (path.stat().st_size, path.stat().st_mtime) == (size, 10**9)
    second = score(bundle, path, tmp_path / "scores.csv").rows
    fresh = score(bundle, path).rows
    assert second["probability"].tolist() == fresh["probability"].tolist()
    assert second["probability"].tolist() != first["probability"].tolist()


def test_labels_are_told_by_their_content(bundle, tmp_path):
    path, labels = write_image(tmp_path / "a.png"), tmp_path / "labels"
    labels.mkdir()
    keys = []
    for digit in "12":
        (labels / "a.txt").write_text(f"8 0.5 0.5 0.{digit} 0.2\n")
        os.utime(labels / "a.txt", (10**9, 10**9))
        rows = score(bundle, path, tmp_path / "scores.csv", labels=str(labels)).rows
        keys += rows["key"].tolist()
    assert len(set(keys)) == 2


@pytest.mark.parametrize("kind", ["image", "labels"])
def test_the_fingerprint_of_a_data_set_is_of_its_content(tmp_path, kind):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    (tmp_path / "dataset.csv").write_text("filestem\n")
    path = tmp_path / {"image": "images/a.png", "labels": "labels/a.txt"}[kind]
    (tmp_path / "images" / "a.png").write_bytes(b"1")
    found = []
    for content in (b"8 0.5 0.5 0.1 0.1", b"8 0.5 0.5 0.1 0.2"):
        path.write_bytes(content)
        os.utime(path, (10**9, 10**9))
        found.append(fingerprint(DataConfig(root=str(tmp_path))))
    assert found[0] != found[1]
    assert fingerprint(DataConfig(root=str(tmp_path))) == found[1]


def test_a_stamp_changes_however_soon_a_file_is_written_again(tmp_path):
    path, stamps = tmp_path / "a", []
    for number in range(5):
        path.write_bytes(bytes([number]))
        os.utime(path, (10**9, 10**9))
        stamps.append(tuple(file_stamp(path)))
    assert len(set(stamps)) == 5
    assert tuple(file_stamp(path)) == stamps[-1]


# ---- labels -----------------------------------------------------------------------------------

WRONG = {
    "confidence": ("8 0.5 0.5 0.2 0.2 0.9", "must be: class xc yc w h"),
    "polygon": ("8 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2", "must be: class xc yc w h"),
    "pixels": ("8 20 30 8 8", "the box must lie within the image"),
    "over 1": ("8 1.5 0.5 0.2 0.2", "the box must lie within the image"),
    "class 9": ("9 0.5 0.5 0.2 0.2", "class 9 must be 0 to 8"),
    "nan": ("8 nan 0.5 0.2 0.2", "must hold finite numbers"),
    "no text": ("\xff", "is not text"),
}


@pytest.mark.parametrize("text, reason", WRONG.values(), ids=WRONG)
def test_a_wrong_label_file_is_the_error_of_its_image(bundle, tmp_path, text, reason):
    labels = tmp_path / "labels"
    labels.mkdir()
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "b.png", 1)
    (labels / "a.txt").write_text(text, encoding="latin-1")
    rows = score(bundle, tmp_path, labels=str(labels)).rows
    assert reason in rows["error"][0] and str(labels / "a.txt") in rows["error"][0]
    assert rows["error"][1] == ""


def test_removed_is_said_only_where_a_marker_was(bundle, tmp_path):
    labels = tmp_path / "labels"
    labels.mkdir()
    for name in "abcd":
        write_image(tmp_path / f"{name}.png")
    (labels / "a.txt").write_text("\ufeff8 0.5 0.5 0.2 0.2\n", encoding="utf-8")
    (labels / "b.txt").write_text("3 0.5 0.5 0.2 0.2\n")
    (labels / "c.txt").write_text("")
    rows = score(bundle, tmp_path, labels=str(labels)).rows
    assert rows["markers"].tolist() == ["removed", "none found", "none found", "left"]


# ---- left out ---------------------------------------------------------------------------------


def test_whatever_is_left_out_is_counted_and_named(bundle, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_image(folder / "a.png")
    write_dicom(folder / "IM1", noise())
    tiff = cv2.imencode(".tiff", noise())[1].tobytes()
    (folder / "b.tif").write_bytes(tiff)
    (folder / "hidden tiff").write_bytes(tiff)
    (folder / "c.bmp").write_bytes(cv2.imencode(".bmp", noise().astype(np.uint8))[1])
    (folder / "d.webp").write_bytes(cv2.imencode(".webp", noise().astype(np.uint8))[1])
    (folder / "e.png.gz").write_bytes(b"\x1f\x8b\x08")
    (folder / "f.png").symlink_to(folder / "nowhere.png")
    (folder / "g.png").symlink_to(folder / "g.png")
    os.mkfifo(folder / "h.png")
    for name in ("notes.txt", "ages.csv", "DICOMDIR"):
        (folder / name).write_text("beside")
    done = score(bundle, folder)
    names = {Path(name).name: reason for name, reason in done.left_out.items()}
    assert names.pop("g.png").startswith("link ")
    assert names == {
        "b.tif": "TIFF is not read",
        "hidden tiff": "TIFF is not read",
        "c.bmp": "BMP is not read",
        "d.webp": "WebP is not read",
        "e.png.gz": "gzip is not read",
        "f.png": "link to nothing",
        "h.png": "not a file",
    }
    assert done.in_words().startswith("2 of 2 images scored, 8 left out: 2 TIFF is not read, ")


def test_links_are_followed_once_and_loops_end(tmp_path):
    folder, other = tmp_path / "in", tmp_path / "other"
    (folder / "deep").mkdir(parents=True)
    other.mkdir()
    write_image(folder / "deep" / "a.png")
    write_image(other / "b.png")
    (folder / "deep" / "loop").symlink_to(folder)
    (folder / "again").symlink_to(folder / "deep")
    (folder / "linked").symlink_to(other)
    (folder / "a link.png").symlink_to(folder / "deep" / "a.png")
    left_out = {}
    found = find_images([folder], left_out=left_out)
    names = [image.path.relative_to(folder).as_posix() for image in found]
    assert (names, left_out) == (["deep/a.png", "linked/b.png"], {})


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed, who may not read")
def test_an_unreadable_folder_is_named(tmp_path):
    folder = tmp_path / "in"
    (folder / "locked").mkdir(parents=True)
    write_image(folder / "a.png")
    (folder / "locked").chmod(0)
    for parent in (folder, tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == 0 and str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    left_out = {}
    os.seteuid(65534)
    try:
        found = find_images([folder], left_out=left_out)
    finally:
        os.seteuid(0)
    assert [image.path.name for image in found] == ["a.png"]
    assert left_out == {str(folder / "locked"): "folder cannot be read (Permission denied)"}


def test_where_nothing_is_found_what_was_left_out_is_said(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    with pytest.raises(NoImage, match=r"no image found; .*a\.tif: TIFF is not read"):
        find_images([tmp_path])


# ---- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".json"])
def test_a_name_that_is_no_utf8_is_kept_in_every_table(bundle, tmp_path, suffix):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / f"{LATIN}.png").write_bytes(encode(noise()))
    write_dicom(folder / LATIN, noise())
    (folder / f"{LATIN}.jpg").write_bytes(b"broken")
    (folder / f"{LATIN}.tif").write_bytes(b"II*\0")
    done = score(bundle, folder, tmp_path / f"scores{suffix}")
    names = [f"{folder}/caf\\xe9{end}" for end in ("", ".jpg", ".png")]
    assert read_scores(tmp_path / f"scores{suffix}")["file"].tolist() == names
    assert done.rows["error"][1].startswith(f"{names[1]}: must be a whole PNG or JPEG")
    assert [bool(error) for error in done.rows["error"]] == [False, True, False]
    str(as_records(done.rows)).encode()
    assert list(done.left_out) == [f"{folder}/caf\\xe9.tif"]


def test_an_error_about_such_a_name_can_be_printed(tmp_path):
    with pytest.raises(PedfracError) as caught:
        find_images([tmp_path / LATIN])
    assert str(caught.value) == f"{tmp_path}/caf\\xe9: no such file or folder"
