"""Heat maps of prepared images, by the networks that score them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pedfrac.bundle.bundle import Bundle
from pedfrac.config.evaluation import ExplanationConfig
from pedfrac.explanation.saliency import FRACTURED, mean_maps
from pedfrac.serving.images import PreparedImage


def maps_of_group(
    bundle: Bundle, group: str, images: Sequence[PreparedImage]
) -> NDArray[np.float32]:
    """Return heat maps (n,S,S) of prepared images, by the networks that score an age group.

    By the default method of ``explanation.method``.
    """
    networks = list(bundle.chosen(bundle.ages.names.index(group)).values())
    pixels = np.stack([one.fracture_image for one in images if one.fracture_image is not None])
    method = ExplanationConfig().method
    return mean_maps(networks, pixels, FRACTURED, method, device=bundle.device)
