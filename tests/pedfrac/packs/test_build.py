"""Packing: the same bytes however many processes, kills and restarts it took; nothing skipped."""

import hashlib
import json
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from pedfrac.config.data import Preparation
from pedfrac.errors import PedfracError
from pedfrac.imaging.boxes import yolo_to_xyxy
from pedfrac.imaging.preprocessing import prepare
from pedfrac.packs.build import CHUNK, build_pack
from pedfrac.packs.decoding import FEW, write_rows
from pedfrac.packs.pack import ENTRIES, Pack

PREPARATION = Preparation(size=64)
FILES = 6

BUILDER = """
import pickle, sys, time
from pathlib import Path
from pedfrac.packs.build import build_pack

def tell(done, total):
    print(done, flush=True)
    time.sleep(0.03)

if __name__ == "__main__":
    arguments = pickle.loads(Path(sys.argv[1]).read_bytes())
    build_pack(*arguments, workers=int(sys.argv[2]), progress=tell)
"""


def make_set(root: Path, count: int):
    """Some image files, and a table of ``count`` images that use them with boxes of their own."""
    rng = np.random.default_rng(0)
    shapes = [(int(h), int(w)) for h, w in rng.integers(60, 200, (FILES, 2))]
    (root / "images").mkdir(parents=True)
    for number, shape in enumerate(shapes):
        image = rng.integers(0, 65536, shape, dtype=np.uint16)
        assert cv2.imwrite(str(root / "images" / f"{number}.png"), image)
    stems = [f"{row:04}_image" for row in range(count)]
    table = pd.DataFrame(
        {
            "filestem": stems,
            "patient_id": [row // 3 for row in range(count)],
            "age": [round(0.2 + row * 0.1, 1) for row in range(count)],
            "gender": ["M" if row % 2 else "F" for row in range(count)],
            "ao_classification": ["" if row % 2 else "23r-M/2.1" for row in range(count)],
            "pixel_spacing": [np.nan if row % 5 == 0 else 0.144 for row in range(count)],
            "fracture_visible": [row % 3 == 0 for row in range(count)],
            "cast": False,
            "image": [f"images/{row % FILES}.png" for row in range(count)],
            "width": [shapes[row % FILES][1] for row in range(count)],
            "height": [shapes[row % FILES][0] for row in range(count)],
        }
    )
    rows = rng.integers(0, count, 2 * count)
    boxes = pd.DataFrame(
        {
            "filestem": [stems[row] for row in rows] + ["9999_of_another_set"],
            "class_id": [*rng.choice([3, 8], 2 * count).tolist(), 8],
            "xc": rng.uniform(0.3, 0.7, 2 * count + 1),
            "yc": rng.uniform(0.3, 0.7, 2 * count + 1),
            "w": rng.uniform(0.1, 0.4, 2 * count + 1),
            "h": rng.uniform(0.1, 0.4, 2 * count + 1),
        }
    )
    return table, boxes


def content(folder: Path):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("set")
    return (*make_set(root, FEW + 8 * CHUNK + 5), root)


@pytest.fixture(scope="module")
def undisturbed(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    build_pack(folder, *images, PREPARATION, workers=1)
    return folder


def test_the_pack_holds_what_prepare_gives_row_by_row(images, undisturbed):
    table, boxes, root = images
    pack = Pack.open(undisturbed)
    assert len(pack) == len(table)
    assert pack.preparation == PREPARATION
    for row in range(0, len(table), 7):
        image = table.iloc[row]
        own = boxes[boxes["filestem"] == image["filestem"]]
        fractions = {k: own.loc[own["class_id"] == k, ["xc", "yc", "w", "h"]] for k in (3, 8)}
        xyxy = {k: yolo_to_xyxy(f, image["width"], image["height"]) for k, f in fractions.items()}
        square, placement = prepare(root / image["image"], xyxy[8], PREPARATION)
        assert np.array_equal(pack.images[row], square)
        for class_id, expected in xyxy.items():
            found = pack.boxes_of(row, class_id)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, placement.apply(expected), atol=1e-3)


def test_the_index_comes_back_with_values_and_types(images, undisturbed):
    table = images[0]
    pack = Pack.open(undisturbed)
    pd.testing.assert_frame_equal(pack.index, table)
    assert pack.index["fracture_visible"].dtype == bool
    assert set(pack.boxes["filestem"]) <= set(table["filestem"])
    stems = pack.boxes["row"].map(table["filestem"])
    assert (stems == pack.boxes["filestem"]).all()


def test_only_the_pack_is_left_and_it_cannot_be_written_to(undisturbed):
    names = {"images.npy", "entries.npy", "index.csv", "boxes.csv", "pack.json"}
    assert set(content(undisturbed)) == names
    with pytest.raises(ValueError, match="read-only"):
        Pack.open(undisturbed).images[0] = 0


def test_rows_are_found_by_name_and_unknown_images_are_named(images, undisturbed):
    stems = images[0]["filestem"]
    pack = Pack.open(undisturbed)
    assert pack.rows([stems[5], stems[0], stems[5]]).tolist() == [5, 0, 5]
    assert pack.rows([]).tolist() == []
    with pytest.raises(PedfracError, match=r"2 of 3 images.*: nobody, nothing"):
        pack.rows(["nobody", stems[1], "nothing"])


def test_boxes_of_a_image_without_any_are_none(undisturbed):
    assert Pack.open(undisturbed).boxes_of(0, 6).shape == (0, 4)


@pytest.mark.parametrize("workers", [2, 3])
def test_more_processes_give_the_same_bytes(images, undisturbed, tmp_path, workers):
    calls = []
    build_pack(tmp_path, *images, PREPARATION, workers, lambda *call: calls.append(call))
    assert content(tmp_path) == content(undisturbed)
    total = len(images[0])
    assert calls[0] == (0, total)
    assert calls[-1] == (total, total)
    assert calls == sorted(calls)


def test_few_images_are_decoded_by_threads_to_the_same_bytes(images, tmp_path, monkeypatch):
    table, boxes, root = images
    few = table.head(3 * CHUNK + 1)
    for name in ("alone", "threads"):
        (tmp_path / name).mkdir()
    build_pack(tmp_path / "alone", few, boxes, root, PREPARATION, workers=1)
    writers = set()

    def write(job):
        writers.add(threading.get_ident())
        time.sleep(0.01)
        return write_rows(job)

    monkeypatch.setattr("pedfrac.packs.decoding.write_rows", write)
    build_pack(tmp_path / "threads", few, boxes, root, PREPARATION, workers=3)
    assert content(tmp_path / "threads") == content(tmp_path / "alone")
    assert len(writers) == 3


@pytest.mark.parametrize("markers", ["inpaint", "off"])
def test_the_preparation_decides_the_pixels(images, undisturbed, tmp_path, markers):
    preparation = Preparation(size=64, markers=markers)
    table, boxes, root = images
    build_pack(tmp_path, table.head(20), boxes, root, preparation)
    pack = Pack.open(tmp_path)
    assert pack.preparation == preparation
    assert not np.array_equal(pack.images, Pack.open(undisturbed).images[:20])


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_a_killed_build_goes_on_to_the_same_bytes(images, undisturbed, tmp_path, workers, seed):
    draw = random.Random(seed)
    folder = tmp_path / "pack"
    folder.mkdir()
    (tmp_path / "arguments").write_bytes(pickle.dumps((folder, *images, PREPARATION)))
    (tmp_path / "builder.py").write_text(BUILDER)
    command = [sys.executable, tmp_path / "builder.py", tmp_path / "arguments", str(workers)]
    builder = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    assert builder.stdout is not None
    for _ in range(draw.randint(3, 7)):
        assert builder.stdout.readline()
    while not (np.load(folder / ENTRIES)["checksum"] >= 0).any():
        time.sleep(0.001)  # a chunk counts when it is on the disk
    time.sleep(draw.uniform(0, 0.04))
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    assert not (folder / "pack.json").exists()
    with pytest.raises(PedfracError):
        Pack.open(folder)

    calls = []
    build_pack(folder, *images, PREPARATION, workers, lambda *call: calls.append(call))
    assert calls[0][0] > 0, "what was done must not be done again"
    assert content(folder) == content(undisturbed)
    _wait_for_end_of_group(builder.pid)


def _wait_for_end_of_group(group: int) -> None:
    """Workers of a killed parent must end by themselves."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("processes of a killed build are still there")


def test_a_killed_worker_is_an_error_and_the_build_goes_on_later(images, undisturbed, tmp_path):
    def kill_one(done, total):
        # later calls tell of work that was done before the kill, when the pool may be gone already
        for worker in multiprocessing.active_children()[:1] if done else ():
            worker.kill()
            time.sleep(0.2)

    with pytest.raises(PedfracError, match=r"killed.*fewer workers"):
        build_pack(tmp_path, *images, PREPARATION, 2, kill_one)
    build_pack(tmp_path, *images, PREPARATION, 1)
    assert content(tmp_path) == content(undisturbed)


@pytest.mark.parametrize("count", [1, 3 * CHUNK])
def test_images_that_do_not_reach_the_disk_make_no_pack(images, tmp_path, monkeypatch, count):
    fsync, failed = os.fsync, []

    def broken(file):
        # once, since a system tells of what it could not write but once
        if not failed and Path(f"/proc/self/fd/{file}").readlink().name == "images.npy":
            failed.append(file)
            raise OSError(5, "Input/output error")
        fsync(file)

    monkeypatch.setattr(os, "fsync", broken)
    table, boxes, root = images
    with pytest.raises(OSError, match="Input/output error"):
        build_pack(tmp_path, table.head(count), boxes, root, PREPARATION, 1)
    assert not (tmp_path / "pack.json").exists()


def test_an_error_of_the_caller_leaves_a_build_that_goes_on(images, undisturbed, tmp_path):
    def stop(done, total):
        if done > 3 * CHUNK:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_pack(tmp_path, *images, PREPARATION, 2, stop)
    assert not multiprocessing.active_children()
    build_pack(tmp_path, *images, PREPARATION, 2)
    assert content(tmp_path) == content(undisturbed)


def test_a_finished_build_is_not_done_again(images, undisturbed, tmp_path):
    table, boxes, _ = images
    before, packed_at = content(undisturbed), (undisturbed / "images.npy").stat().st_mtime_ns
    calls = []
    nowhere = tmp_path  # an image that is decoded would be missed
    build_pack(undisturbed, table, boxes, nowhere, PREPARATION, 1, lambda *call: calls.append(call))
    assert calls == [(len(table), len(table))]
    assert (undisturbed / "images.npy").stat().st_mtime_ns == packed_at
    assert content(undisturbed) == before


def test_a_half_built_pack_of_other_images_is_not_gone_on_with(images, undisturbed, tmp_path):
    def stop(done, total):
        if done:
            raise KeyboardInterrupt

    table, boxes, root = images
    other = table.assign(image=table["image"].to_numpy()[::-1])
    for column in ("width", "height"):
        other[column] = table[column].to_numpy()[::-1]
    with pytest.raises(KeyboardInterrupt):
        build_pack(tmp_path, other, boxes, root, PREPARATION, 1, stop)
    build_pack(tmp_path, *images, PREPARATION, 1)
    assert content(tmp_path) == content(undisturbed)


@pytest.mark.parametrize("workers", [1, 2])
def test_all_images_that_cannot_be_decoded_are_named(tmp_path, workers):
    root, folder = tmp_path / "set", tmp_path / "pack"
    folder.mkdir()
    table, boxes = make_set(root, FEW + CHUNK)
    table["image"] = [f"images/{row}.png" for row in range(len(table))]
    sources = [(root / "images" / f"{number}.png").read_bytes() for number in range(FILES)]
    for row in range(len(table)):
        (root / table["image"][row]).write_bytes(sources[row % FILES])
    whole = (root / "images/40.png").read_bytes()
    (root / "images/40.png").write_bytes(whole[: len(whole) // 2])
    (root / "images/7.png").write_bytes(b"garbage")
    (root / "images/50.png").unlink()
    with pytest.raises(PedfracError) as error:
        build_pack(folder, table, boxes, root, PREPARATION, workers)
    for part in (f"3 of {len(table)}", "7.png", "40.png", "50.png", "truncated", "garbage"):
        assert part in str(error.value)
    assert not (folder / "pack.json").exists()

    for row in (7, 40, 50):  # repaired, only these are left to do
        (root / table["image"][row]).write_bytes(sources[row % FILES])
    calls = []
    build_pack(folder, table, boxes, root, PREPARATION, workers, lambda *c: calls.append(c))
    assert calls[0] == (len(table) - 3, len(table))
    assert Pack.open(folder).images.any(axis=(1, 2)).all()


def test_a_image_of_another_size_than_on_record_is_named(images, tmp_path):
    table, boxes, root = images
    wrong = table.head(5).assign(width=table["width"].head(5) + 1)
    with pytest.raises(PedfracError, match=r"5 of 5[^:]*:\s.*0\.png.*on record"):
        build_pack(tmp_path, wrong, boxes, root, PREPARATION)


def test_no_images_and_images_listed_twice_are_errors(images, tmp_path):
    table, boxes, root = images
    with pytest.raises(PedfracError, match="no images"):
        build_pack(tmp_path, table.head(0), boxes, root, PREPARATION)
    with pytest.raises(PedfracError, match="listed twice: 0000_image"):
        build_pack(tmp_path, pd.concat([table.head(3)] * 2), boxes, root, PREPARATION)


def test_a_pack_too_large_for_the_disk_is_an_error_at_the_start(images, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pedfrac.packs.build.os.posix_fallocate", full)
    with pytest.raises(PedfracError, match=r"GB are needed \(No space left"):
        build_pack(tmp_path, *images, PREPARATION)


@pytest.mark.parametrize("name", ["images.npy", "index.csv", "boxes.csv", "pack.json"])
@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_damaged_pack_does_not_open(undisturbed, tmp_path, name, damage):
    for path in undisturbed.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    target = tmp_path / name
    if damage == "missing":
        target.unlink()
    else:
        lines = target.read_bytes()
        target.write_bytes(lines[: len(lines) // 2] if name != "boxes.csv" else b"row\nx\n")
    with pytest.raises(PedfracError, match=str(tmp_path)):
        Pack.open(tmp_path)


def test_files_of_different_packs_do_not_open_together(undisturbed, tmp_path):
    for path in undisturbed.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    meta = json.loads((tmp_path / "pack.json").read_text())
    meta["preparation"]["size"] = 32
    (tmp_path / "pack.json").write_text(json.dumps(meta))
    with pytest.raises(PedfracError, match=r"images\.npy: must be uint8 of shape"):
        Pack.open(tmp_path)


def test_an_image_that_changed_since_the_records_is_not_packed(tmp_path):
    table, boxes = make_set(tmp_path, 2)
    hashes = [hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in table["image"]]
    table["sha256"] = [hashes[0], hashes[0]]
    (tmp_path / "pack").mkdir()
    with pytest.raises(
        PedfracError, match=r"1 of 2 images .*\n.*1\.png: has changed since the rec"
    ):
        build_pack(tmp_path / "pack", table, boxes, tmp_path, PREPARATION, workers=1)
