"""Re-packing: the same pack as from all films anew, of which only new and changed ones are read."""

import tempfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pedfrac import steps
from pedfrac.config import PhantomConfig, Preparation, RetrainConfig
from pedfrac.packing import IMAGES, Pack, build_pack
from pedfrac.phantoms import write_phantoms
from pedfrac.records import CLASSES
from pedfrac.repacking import EarlierPack, copy_rows
from pedfrac.storage import file_hash

PREPARATION = Preparation(size=16)
TEXT, FRACTURE = CLASSES.index("text"), CLASSES.index("fracture")
FILES = 6


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Small films of their own sizes, all different."""
    folder = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    for number in range(FILES):
        film = rng.integers(0, 65536, (20 + number, 30 - number), dtype=np.uint16)
        assert cv2.imwrite(str(folder / f"{number}.png"), film)
    return folder


@st.composite
def states(draw):
    """One state of a data set: films by name, each with its file, marker and fracture boxes."""
    stems = draw(st.permutations([f"film{number}" for number in range(8)]))
    return [
        (stem, draw(st.integers(0, FILES - 1)), draw(st.integers(0, 2)), draw(st.booleans()))
        for stem in stems[: draw(st.integers(1, 8))]
    ]


def tables(root, state):
    table = pd.DataFrame(
        {
            "filestem": [stem for stem, *_ in state],
            "image": [f"{number}.png" for _, number, *_ in state],
            "width": [30 - number for _, number, *_ in state],
            "height": [20 + number for _, number, *_ in state],
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


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=25, deadline=None)
@given(before=states(), after=states())
def test_a_repack_is_the_pack_made_anew_and_reads_only_what_changed(root, before, after):
    with tempfile.TemporaryDirectory() as scratch:
        earlier, full, again = (Path(scratch) / name for name in ("earlier", "full", "again"))
        for folder in (earlier, full, again):
            folder.mkdir()
        build_pack(earlier, *tables(root, before), root, PREPARATION)
        build_pack(full, *tables(root, after), root, PREPARATION)

        known = EarlierPack(earlier / IMAGES, *tables(root, before))
        calls = []
        build_pack(
            again, *tables(root, after), root, PREPARATION, 1, lambda *c: calls.append(c), known
        )
        assert content(again) == content(full)
        pixels = {(stem, number, markers) for stem, number, markers, _ in before}
        same = [(stem, number, markers) in pixels for stem, number, markers, _ in after]
        assert calls[0] == (sum(same), len(after)), "what is known must not be decoded"


def test_known_films_are_copied_though_their_files_are_gone(root, tmp_path):
    table, boxes = tables(root, [(f"film{number}", number, 1, True) for number in range(FILES)])
    for name in ("earlier", "again"):
        (tmp_path / name).mkdir()
    build_pack(tmp_path / "earlier", table, boxes, root, PREPARATION)
    known = EarlierPack(tmp_path / "earlier" / IMAGES, table, boxes)
    kept = table[table["filestem"] != "film2"].reset_index(drop=True)
    build_pack(tmp_path / "again", kept, boxes, Path("nowhere"), PREPARATION, earlier=known)
    expected = np.delete(Pack.open(tmp_path / "earlier").images, 2, axis=0)
    assert np.array_equal(Pack.open(tmp_path / "again").images, expected)


def test_a_repack_that_was_stopped_goes_on(root, tmp_path):
    table, boxes = tables(root, [(f"film{number}", number, 1, True) for number in range(FILES)])
    for name in ("earlier", "full", "again"):
        (tmp_path / name).mkdir()
    build_pack(tmp_path / "earlier", table.head(4), boxes, root, PREPARATION)
    build_pack(tmp_path / "full", table, boxes, root, PREPARATION)
    known = EarlierPack(tmp_path / "earlier" / IMAGES, table.head(4), boxes)

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_pack(tmp_path / "again", table, boxes, root, PREPARATION, 1, stop, known)
    calls = []
    build_pack(tmp_path / "again", table, boxes, root, PREPARATION, 1, lambda *c: calls.append(c))
    assert calls[0] == (4, FILES), "what was copied must not be decoded"
    assert content(tmp_path / "again") == content(tmp_path / "full")


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
    """Write dataset.csv, pack by the steps; return the artifact and how many films were copied."""
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
    key = steps.pack_films(
        config, steps.read_records(config), config.fracture.model, lambda *c: calls.append(c)
    )
    return steps.store_of(config).get(key), calls[0][0]


@pytest.fixture(params=["folder", "S3"])
def artifacts(request, tmp_path):
    return (
        tmp_path / "artifacts" if request.param == "folder" else request.getfixturevalue("s3_root")
    )


def test_the_step_copies_what_its_last_pack_of_the_data_set_holds(artifacts, tmp_path):
    data = tmp_path / "data"
    write_phantoms(data, PhantomConfig(images=24, scale=0.1, workers=1))
    header, *films = (data / "dataset.csv").read_bytes().splitlines(keepends=True)
    _, copied = packed(data, artifacts, [header, *films[:20]])
    assert copied == 0

    now = [header, *films[3:8], *films[9:]]
    again, copied = packed(data, artifacts, now)
    assert copied == 5 + 11
    full, copied = packed(data, tmp_path / "another", now)
    assert copied == 0
    assert (again.key, again.digest) == (full.key, full.digest)


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


def test_an_earlier_pack_that_is_cut_off_is_an_error(tmp_path):
    (tmp_path / "source").write_bytes(bytes(20))
    (tmp_path / "target").write_bytes(bytes(70))
    with pytest.raises(EOFError, match="row 2"):
        copy_rows((tmp_path / "source", 0), (tmp_path / "target", 0), np.array([[2, 0]]), 10)
