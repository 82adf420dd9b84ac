"""Profiling: the reference profile of a bundle, made of images of the data that made it.

Not here: what a profile is and how it lies on disk (reference_profile).
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch

from pedfrac.bundle.bundle import BATCH, Bundle
from pedfrac.bundle.calls import routed_calls
from pedfrac.bundle.embedding import Basis, Floats, watched
from pedfrac.bundle.reference_profile import IMAGE, WATCHED, Profile, feature_names, views
from pedfrac.imaging.image_statistics import image_statistics
from pedfrac.models.inputs import to_images
from pedfrac.packs.pack import Pack

MOST_IMAGES = 2000  # of the reference: a test compares each image with each other
BASIS_IMAGES = 1000
KEPT = ("probability", "threshold", "call", "age_group_used", "age_group_seen")


def make_profile(
    bundle: Bundle, fracture: Pack, age: Pack, validation: list[str], training: list[str]
) -> Profile:
    """Return the profile of a bundle from images of two packs, by their filestems.

    The reference are validation images as they came. The test set is none: it holds as many images
    of each year of age, half of them fractured, and one a patient, while validation patients were
    drawn at random and keep all their images, so that their mix of ages, views and fractures is
    that of the cohort. No network learned from them, but they chose epochs, thresholds and
    calibration, which makes scores on them slightly too good. Training images only make the
    features' basis, to which images of the reference and of a later window are then equally
    strange. Beyond MOST_IMAGES whole patients are left out at random.
    """
    metadata = fracture.index.set_index("filestem", drop=False)
    chosen = _thinned(metadata.loc[validation])
    basis = Basis.of(_features(bundle, fracture, training))
    stems = chosen["filestem"].tolist()
    parts = []
    for some in _batches(stems):
        with watched(bundle.networks[WATCHED]) as seen:
            scores = bundle.score_packs(fracture, age, some, specialists="needed")
        calls = routed_calls(bundle, scores)[list(KEPT)]
        features = _joined([part.numpy() for part in seen], len(basis.mean))[: len(some)]
        parts.append(calls.join(pd.DataFrame(basis(features), columns=feature_names(len(basis)))))
    images = _described(chosen, fracture, stems).join(pd.concat(parts, ignore_index=True))
    about = {
        "images_are": "of validation patients, who taught no network",
        "images": len(images),
        "patients": int(images["patient"].nunique()),
        "fractured": int(images["fractured"].sum()),
        "of_images": len(validation),
        "features": len(basis),
        "markers": fracture.preparation.markers,
    }
    return Profile(images, basis, about)


def _thinned(images: pd.DataFrame) -> pd.DataFrame:
    """Return images of whole patients in random order, as many as a reference holds."""
    random = np.random.default_rng(0)
    patients = random.permutation(images["patient_id"].unique())
    counts = images["patient_id"].value_counts()[patients].cumsum()
    kept = images[images["patient_id"].isin(patients[counts <= max(MOST_IMAGES, counts.iloc[0])])]
    return kept.iloc[random.permutation(len(kept))]


def _described(images: pd.DataFrame, pack: Pack, stems: list[str]) -> pd.DataFrame:
    shapes = zip(images["height"], images["width"], strict=True)
    statistics = [
        image_statistics(pack.images[row], (int(height), int(width)))
        for row, (height, width) in zip(pack.rows(stems), shapes, strict=True)
    ]
    return pd.DataFrame(
        {
            "patient": pd.factorize(images["patient_id"])[0],  # in their random order
            "fractured": images["fracture_visible"].to_numpy(dtype=bool),
            "age": images["age"].to_numpy(),
            "sex": images["gender"].to_numpy(str),
            "laterality": images["laterality"].to_numpy(str),
            "view": views(images["projection"]).to_numpy(str),
        }
    ).join(pd.DataFrame(statistics, columns=list(IMAGE)))


def _features(bundle: Bundle, pack: Pack, stems: list[str]) -> Floats:
    """Return what the watched network's last layer sees of some of these images, (n, d)."""
    every = max(1, -(-len(stems) // BASIS_IMAGES))
    parts: list[Floats] = []
    with torch.inference_mode(), watched(bundle.networks[WATCHED]) as seen:
        for some in _batches(stems[::every]):
            bundle.networks[WATCHED].answers(to_images(pack.images[pack.rows(some)], bundle.device))
            parts.append(_joined([part.numpy() for part in seen], 0)[: len(some)])
            seen.clear()
    return _joined(parts, 0)


def _joined(parts: list[Floats], width: int) -> Floats:
    return np.concatenate(parts) if parts else np.zeros((0, width))


def _batches(stems: list[str]) -> Iterator[list[str]]:
    return (stems[start : start + BATCH] for start in range(0, len(stems), BATCH))
