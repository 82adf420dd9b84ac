"""Mapped images: parts read as one array are that array, here and in another process."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pedfrac.packs.mapped import JoinedImages, MappedArray

LENGTHS = (3, 1, 5)
PARTS = [
    np.random.default_rng(number).integers(0, 256, (length, 2, 2), np.uint8)
    for number, length in enumerate(LENGTHS)
]
PLACES = [(part, at) for part, length in enumerate(LENGTHS) for at in range(length)]


@st.composite
def images_and_rows(draw):
    chosen = draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=12))
    n = len(chosen)
    one = st.integers(-n, n - 1)
    several = st.lists(one, max_size=8).map(lambda rows: np.array(rows, np.int64))
    flags = st.lists(st.booleans(), min_size=n, max_size=n).map(lambda on: np.array(on, bool))
    return chosen, draw(st.one_of(one, one.map(np.int64), several, flags, st.slices(n)))


@given(drawn=images_and_rows())
def test_parts_are_read_as_the_one_array_that_they_make(drawn):
    chosen, rows = drawn
    whole = np.stack([PARTS[part][at] for part, at in chosen])
    joined = JoinedImages(PARTS, np.array(chosen, np.int32))
    found = joined[rows]
    assert found.dtype == np.uint8 and found.shape == whole[rows].shape
    assert np.array_equal(found, whole[rows])
    assert joined.shape == whole.shape and len(joined) == len(whole)
    assert np.array_equal(joined, whole)


@pytest.mark.parametrize("places", [[(3, 0)], [(1, 1)], [(0, -1)], [(-1, 0)], [0, 1]])
def test_places_that_no_part_has_are_refused(places):
    with pytest.raises(ValueError, match="place"):
        JoinedImages(PARTS, np.array(places, np.int32))


def test_parts_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="one size"):
        JoinedImages([PARTS[0], np.zeros((1, 2, 3), np.uint8)], np.zeros((1, 2), np.int32))


def test_a_mapped_array_is_sent_by_name(tmp_path):
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.save(tmp_path / "entries.npy", images)
    mapped = np.load(tmp_path / "entries.npy", mmap_mode="r")
    sent = MappedArray.of(mapped)
    assert isinstance(sent, MappedArray) and np.array_equal(sent.open(), images)
    assert not isinstance(MappedArray.of(mapped[1:]), MappedArray)
    assert MappedArray.of(images) is images


def test_joined_images_are_sent_by_name_and_cannot_be_written_to(tmp_path):
    images = np.zeros((200, 32, 32), np.uint8)
    images[:, 0, 0] = np.arange(200)
    parts = []
    for number in range(2):
        np.save(tmp_path / f"{number}.npy", images[number::2])
        parts.append(np.load(tmp_path / f"{number}.npy", mmap_mode="r"))
    places = np.stack([np.arange(200) % 2, np.arange(200) // 2], axis=1).astype(np.int32)
    joined = JoinedImages(parts, places)
    assert len(pickle.dumps(joined)) < images.nbytes / 50
    again = copy.copy(joined)  # goes through the same two methods as the way to another process
    assert np.array_equal(again, images)
    with pytest.raises(ValueError, match="read-only"):
        again[3][:] = 1
    with pytest.raises(TypeError):
        again[3] = 1
