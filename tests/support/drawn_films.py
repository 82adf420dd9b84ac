"""Films drawn at random for properties of figures: truths and probabilities, many of them equal."""

import numpy as np
from hypothesis import strategies as st


def draw_films(seed, films, classes, levels):
    """Draw truth and probabilities on a coarse grid: many are equal, and between classes, too."""
    random = np.random.default_rng(seed)
    raw = random.integers(0, levels, (films, classes)) + 1e-9
    return random.integers(0, classes, films), raw / raw.sum(axis=1, keepdims=True)


films = st.builds(
    draw_films,
    seed=st.integers(0, 2**32 - 1),
    films=st.integers(1, 40),
    classes=st.integers(2, 5),
    levels=st.integers(1, 6),
)
