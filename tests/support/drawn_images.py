"""Random truths and probabilities, many of them equal, for properties of metrics."""

import numpy as np
from hypothesis import strategies as st


def draw_images(seed, images, classes, levels):
    """Draw truth and probabilities on a coarse grid: many are equal, and between classes, too."""
    random = np.random.default_rng(seed)
    raw = random.integers(0, levels, (images, classes)) + 1e-9
    return random.integers(0, classes, images), raw / raw.sum(axis=1, keepdims=True)


images = st.builds(
    draw_images,
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 40),
    classes=st.integers(2, 5),
    levels=st.integers(1, 6),
)
