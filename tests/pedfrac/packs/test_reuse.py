"""Re-packing: the same pack as from scratch, reading only new and changed images."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pedfrac import pipeline
from pedfrac.config.data import Preparation
from pedfrac.config.phantoms import PhantomConfig
from pedfrac.config.retrain import RetrainConfig
from pedfrac.data.schema import CLASSES
from pedfrac.errors import PedfracError
from pedfrac.packs import reuse
from pedfrac.packs.arrays import IMAGES, PLACES
from pedfrac.packs.build import build_pack
from pedfrac.packs.pack import CONTENT, Pack
from pedfrac.packs.reuse import copy_rows
from pedfrac.phantoms.dataset import write_phantoms
from pedfrac.storage.files import file_hash
from pedfrac.storage.store import ArtifactStore

PREPARATION = Preparation(size=16)
TEXT, FRACTURE = CLASSES.index("text"), CLASSES.index("fracture")
FILES = 6


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Small images of their own sizes, all different."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(FILES):
        image = rng.integers(0, 65536, (40 + number, 60 - number), dtype=np.uint16)
        assert cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder


@st.composite
def states(draw):
    """One state of a data set: images by name, each with its file, marker and fracture boxes."""
    stems = draw(st.permutations([f"image{number}" for number in range(8)]))
    return [
        (stem, draw(st.integers(0, FILES - 1)), draw(st.integers(0, 2)), draw(st.booleans()))
        for stem in stems[: draw(st.integers(1, 8))]
    ]


def tables(root, state):
    table = pd.DataFrame(
        {
            "filestem": [stem for stem, *_ in state],
            "image": [f"{number}.png" for _, number, *_ in state],
            "width": [60 - number for _, number, *_ in state],
            "height": [40 + number for _, number, *_ in state],
            "sha256": [file_hash(root / f"{number}.png") for _, number, *_ in state],
        }
    )
    boxes = [
        (stem, kind, 0.3 + 0.2 * at, 0.5, 0.1, 0.125)
        for stem, _, markers, fractured in state
        for kind, count in ((TEXT, markers), (FRACTURE, int(fractured)))
        for at in range(count)
    ]
    names = ["filestem", "class_id", "xc", "yc", "w", "h"]
    types = dict.fromkeys(names[2:], "float64") | {"filestem": "str", "class_id": "int64"}
    return table, pd.DataFrame(boxes, columns=names).astype(types)


def told(folder):
    """What a pack holds, wherever its pixels lie."""
    return {name: (folder / name).read_bytes() for name in CONTENT}


def assert_same_packs(again, full):
    assert told(again) == told(full)
    assert np.array_equal(Pack.open(again).images, Pack.open(full).images)


def arrays(folder):
    return {path: path.read_bytes() for path in folder.glob("images*.npy")}


def folders(root, *names):
    for name in names:
        (root / name).mkdir()
    return [root / name for name in names]


@settings(max_examples=25, deadline=None)
@given(data=st.data(), history=st.lists(states(), min_size=2, max_size=5))
def test_a_repack_is_the_pack_made_anew_and_reads_only_what_changed(root, data, history):
    bounds = {
        "MOST_PARTS": data.draw(st.integers(1, 4)),
        "MOST_UNUSED": data.draw(st.sampled_from([0, 0.3, 1])),
    }
    with tempfile.TemporaryDirectory() as scratch, mock.patch.multiple(reuse, **bounds):
        packs = folders(Path(scratch), *(f"{number}" for number in range(len(history))), "full")
        earlier, pixels = None, set()
        for folder, state in zip(packs, history, strict=False):
            before = {} if earlier is None else arrays(earlier)
            calls = []
            build_pack(
                folder, *tables(root, state), root, PREPARATION, 1,
                lambda *call, calls=calls: calls.append(call), earlier,
            )  # fmt: skip
            same = [(number, markers) in pixels for _, number, markers, _ in state]
            assert calls[0] == (sum(same), len(state)), "what is known must not be decoded"
            assert {path: path.read_bytes() for path in before} == before
            assert len(arrays(folder)) <= max(1, bounds["MOST_PARTS"])
            earlier, pixels = folder, {(number, markers) for _, number, markers, _ in state}
        build_pack(packs[-1], *tables(root, history[-1]), root, PREPARATION)
        assert_same_packs(earlier, packs[-1])


def all_images(root):
    return tables(root, [(f"image{number}", number, 1, True) for number in range(FILES)])


def first(table, count):
    return table.head(count).reset_index(drop=True)


def test_known_images_are_shared_though_their_files_are_gone(root, tmp_path):
    table, boxes = all_images(root)
    earlier, again = folders(tmp_path, "earlier", "again")
    build_pack(earlier, table, boxes, root, PREPARATION)
    kept = table[table["filestem"] != "image2"].reset_index(drop=True)
    build_pack(again, kept, boxes, Path("nowhere"), PREPARATION, earlier=earlier)
    expected = np.delete(Pack.open(earlier).images, 2, axis=0)
    assert np.array_equal(Pack.open(again).images, expected)


def test_a_repack_shares_the_array_of_the_earlier_pack_and_outlives_it(root, tmp_path):
    table, boxes = all_images(root)
    earlier, full, again, same = folders(tmp_path, "earlier", "full", "again", "same")
    build_pack(earlier, first(table, 5), boxes, root, PREPARATION)
    build_pack(full, table, boxes, root, PREPARATION)
    build_pack(again, table, boxes, root, PREPARATION, earlier=earlier)
    build_pack(same, first(table, 5), boxes, root, PREPARATION, earlier=earlier)
    assert (again / "images-0.npy").samefile(earlier / IMAGES)
    assert len(np.load(again / "images-1.npy")) == 1
    assert (same / IMAGES).samefile(earlier / IMAGES) and not (same / PLACES).exists()
    shutil.rmtree(earlier)
    assert_same_packs(again, full)


def test_a_pack_with_much_unused_is_copied_into_one_array(root, tmp_path):
    table, boxes = all_images(root)
    earlier, full, again = folders(tmp_path, "earlier", "full", "again")
    build_pack(earlier, table, boxes, root, PREPARATION)
    few = first(table, 3)
    build_pack(full, few, boxes, root, PREPARATION)
    build_pack(again, few, boxes, Path("nowhere"), PREPARATION, earlier=earlier)
    assert {path.name for path in arrays(again)} == {IMAGES}
    assert len(Pack.open(again)) == 3
    assert_same_packs(again, full)


def test_where_links_are_impossible_rows_are_copied(root, tmp_path, monkeypatch):
    table, boxes = all_images(root)
    earlier, full, again = folders(tmp_path, "earlier", "full", "again")
    build_pack(earlier, first(table, 5), boxes, root, PREPARATION)
    build_pack(full, table, boxes, root, PREPARATION)

    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("pedfrac.packs.arrays.os.link", refuse)
    calls = []
    build_pack(again, table, boxes, root, PREPARATION, 1, lambda *c: calls.append(c), earlier)
    assert calls[0] == (5, FILES)
    assert {path.name for path in arrays(again)} == {IMAGES}
    assert_same_packs(again, full)


@pytest.mark.parametrize("linked", [True, False])
def test_a_repack_that_was_stopped_goes_on(root, tmp_path, linked, monkeypatch):
    if not linked:
        monkeypatch.setattr("pedfrac.packs.reuse.MOST_PARTS", 1)
    table, boxes = all_images(root)
    earlier, full, again = folders(tmp_path, "earlier", "full", "again")
    build_pack(earlier, first(table, 4), boxes, root, PREPARATION)
    build_pack(full, table, boxes, root, PREPARATION)
    before = arrays(earlier)

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_pack(again, table, boxes, root, PREPARATION, 1, stop, earlier)
    with pytest.raises(PedfracError):
        Pack.open(again)
    calls = []
    build_pack(again, table, boxes, root, PREPARATION, 1, lambda *c: calls.append(c))
    assert calls[0] == (4, FILES), "what was shared or copied must not be decoded"
    assert_same_packs(again, full)
    assert arrays(earlier) == before
    assert (again / "images-0.npy").exists() == linked


def test_a_repack_stopped_before_its_ledger_begins_anew(root, tmp_path, monkeypatch):
    table, boxes = all_images(root)
    earlier, full, again = folders(tmp_path, "earlier", "full", "again")
    build_pack(earlier, first(table, 4), boxes, root, PREPARATION)
    build_pack(full, table, boxes, root, PREPARATION)
    before = arrays(earlier)
    with monkeypatch.context() as patch:
        patch.setattr("pedfrac.packs.build.allocate", mock.Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build_pack(again, table, boxes, root, PREPARATION, 1, earlier=earlier)
    build_pack(again, table, boxes, root, PREPARATION, 1)  # of all images, and into no shared file
    assert arrays(earlier) == before
    assert {path.name for path in again.glob("*.npy")} == {IMAGES, "entries.npy"}
    assert_same_packs(again, full)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flatten(path):
    np.save(path, np.zeros(3, np.int32))


def point_beyond(path):
    np.save(path, np.load(path) + 5)


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        *[(name, harm) for name in ("images-0.npy", "images-1.npy") for harm in (Path.unlink, cut)],
        *[(PLACES, harm) for harm in (Path.unlink, cut, flatten, point_beyond)],
    ],
)
def test_a_damaged_pack_of_parts_does_not_open(root, tmp_path, name, harm):
    table, boxes = all_images(root)
    earlier, again = folders(tmp_path, "earlier", "again")
    build_pack(earlier, first(table, 5), boxes, root, PREPARATION)
    build_pack(again, table, boxes, root, PREPARATION, earlier=earlier)
    harm(again / name)
    with pytest.raises(PedfracError, match=f"{again}: is no pack"):
        Pack.open(again)


def test_images_whose_content_is_not_on_record_are_decoded(root, tmp_path):
    table, boxes = all_images(root)
    earlier, again = folders(tmp_path, "earlier", "again")
    unread = table.assign(sha256="")
    build_pack(earlier, unread, boxes, root, PREPARATION)
    calls = []
    build_pack(again, unread, boxes, root, PREPARATION, 1, lambda *c: calls.append(c), earlier)
    assert calls[0] == (0, FILES)


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.integers(0, 11), unique=True), data=st.data())
def test_any_rows_are_copied_to_any_place(rows, data):
    places = data.draw(st.permutations(range(12)))[: len(rows)]
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "source", Path(scratch) / "target"
        old = np.random.default_rng(0).integers(0, 256, (12, 7), np.uint8)
        new = np.zeros((12, 7), np.uint8)
        source.write_bytes(b"head" + old.tobytes())
        target.write_bytes(b"other" + new.tobytes())
        pairs = np.array([rows, places], np.int64).T.reshape(-1, 2)
        copy_rows((source, 4), (target, 5), pairs, 7)
        new[places] = old[rows]
        assert target.read_bytes() == b"other" + new.tobytes()


def packed(data, artifacts, lines):
    """Write dataset.csv, pack by the steps; return the artifact and how many images were copied."""
    (data / "dataset.csv").write_bytes(b"".join(lines))
    config = RetrainConfig.model_validate(
        {
            "data": {"root": str(data)},
            "artifacts": str(artifacts),
            "fracture": {"model": {"size": 32}},
            "runtime": {"workers": 1},
        }
    )
    calls = []
    key = pipeline.pack_images(
        config, pipeline.read_records(config), config.fracture.model, lambda *c: calls.append(c)
    )
    return pipeline.store_of(config).get(key), calls[0][0]


@pytest.fixture(params=["folder", "S3"])
def artifacts(request, tmp_path):
    return (
        tmp_path / "artifacts" if request.param == "folder" else request.getfixturevalue("s3_root")
    )


def test_the_step_copies_what_its_last_pack_of_the_data_set_holds(artifacts, tmp_path):
    data = tmp_path / "data"
    write_phantoms(data, PhantomConfig(images=24, scale=0.1, workers=1))
    header, *images = (data / "dataset.csv").read_bytes().splitlines(keepends=True)
    _, copied = packed(data, artifacts, [header, *images[:20]])
    assert copied == 0

    now = [header, *images[3:8], *images[9:]]
    again, copied = packed(data, artifacts, now)
    assert copied == 5 + 11
    full, copied = packed(data, tmp_path / "another", now)
    assert copied == 0
    assert (again.key, again.digest) == (full.key, full.digest)


def test_the_step_shares_the_array_and_removing_either_leaves_the_other_whole(artifacts, tmp_path):
    data = tmp_path / "data"
    write_phantoms(data, PhantomConfig(images=12, scale=0.1, workers=1))
    lines = (data / "dataset.csv").read_bytes().splitlines(keepends=True)
    store = ArtifactStore(artifacts)
    earlier, _ = packed(data, artifacts, lines[:-1])
    with mock.patch("pedfrac.storage.manifest.file_hash", wraps=file_hash) as hashed:
        again, copied = packed(data, artifacts, lines)
    assert copied == len(lines) - 2
    assert (again.path / "images-0.npy").samefile(earlier.path / IMAGES)
    if artifacts == tmp_path / "artifacts":  # fetched, every file is hashed
        names = [call.args[0].name for call in hashed.call_args_list]
        assert "images-1.npy" in names and "images-0.npy" not in names
    assert again.manifest.files["images-0.npy"] == earlier.manifest.files[IMAGES]
    full, _ = packed(data, tmp_path / "another", lines)
    assert (again.key, again.digest) == (full.key, full.digest)
    assert again.manifest.files != full.manifest.files

    store.remove(earlier.manifest)
    assert store.verify(again.key) == []
    assert np.array_equal(Pack.open(store.get(again.key).path).images, Pack.open(full.path).images)


def test_damage_to_a_shared_array_is_noticed_in_all_packs_that_have_it(tmp_path):
    data, artifacts = tmp_path / "data", tmp_path / "artifacts"
    write_phantoms(data, PhantomConfig(images=12, scale=0.1, workers=1))
    lines = (data / "dataset.csv").read_bytes().splitlines(keepends=True)
    earlier, _ = packed(data, artifacts, lines[:-1])
    again, _ = packed(data, artifacts, lines)
    store = ArtifactStore(artifacts)
    shared = again.path / "images-0.npy"
    times = shared.stat().st_atime_ns, shared.stat().st_mtime_ns
    with shared.open("r+b") as images:
        images.seek(-1, 2)
        images.write(b"\xff")
    assert store.find(again.key) is None and store.find(earlier.key) is None
    os.utime(shared, ns=times)  # as where a disk forgets
    assert store.verify(again.key) == ["images-0.npy"]
    assert store.verify(earlier.key) == [IMAGES]


def test_the_step_copies_nothing_from_a_pack_that_was_changed(tmp_path):
    data, artifacts = tmp_path / "data", tmp_path / "artifacts"
    write_phantoms(data, PhantomConfig(images=8, scale=0.1, workers=1))
    lines = (data / "dataset.csv").read_bytes().splitlines(keepends=True)
    earlier, _ = packed(data, artifacts, lines[:-1])
    with (earlier.path / IMAGES).open("r+b") as images:
        images.seek(-1, 2)
        images.write(b"\xff")
    _, copied = packed(data, artifacts, lines)
    assert copied == 0


def test_a_pack_of_a_former_version_opens_and_is_not_shared(tmp_path):
    data, artifacts = tmp_path / "data", tmp_path / "artifacts"
    write_phantoms(data, PhantomConfig(images=8, scale=0.1, workers=1))
    lines = (data / "dataset.csv").read_bytes().splitlines(keepends=True)
    earlier, _ = packed(data, artifacts, lines[:-1])
    (earlier.path / "entries.npy").unlink()
    fields = earlier.manifest.model_dump(exclude={"told_by"})
    del fields["files"]["entries.npy"]
    (earlier.path / "manifest.json").write_text(json.dumps(fields))
    found = ArtifactStore(artifacts).get(earlier.key)
    assert len(Pack.open(found.path)) == len(lines) - 2
    again, copied = packed(data, artifacts, lines)
    assert copied == 0 and (again.path / IMAGES).exists()


def test_an_earlier_pack_that_is_cut_off_is_an_error(tmp_path):
    (tmp_path / "source").write_bytes(bytes(20))
    (tmp_path / "target").write_bytes(bytes(70))
    with pytest.raises(EOFError, match="row 2"):
        copy_rows((tmp_path / "source", 0), (tmp_path / "target", 0), np.array([[2, 0]]), 10)
