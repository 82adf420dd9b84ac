"""The feed gives the images that were asked for, in order, and stops when it is left."""

import threading

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pedfrac.training.loader import Feed

IMAGES = np.arange(20, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
ROWS = np.arange(19, 3, -2)
CPU = torch.device("cpu")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, len(ROWS) - 1), min_size=1, max_size=5), max_size=6))
def test_batches_come_as_asked_for(places):
    batches = Feed(IMAGES, ROWS, CPU).batches([torch.tensor(own) for own in places])
    found = [batch[:, 0, 0].tolist() for batch in batches]
    assert found == [ROWS[own].tolist() for own in places]


def test_one_that_is_left_early_leaves_no_thread():
    before = threading.active_count()
    batches = Feed(IMAGES, ROWS, CPU).batches(list(torch.arange(8).split(2)))
    assert next(batches).dtype == torch.uint8
    batches.close()
    assert threading.active_count() == before
