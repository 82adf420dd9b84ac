"""What each score keeps for monitoring: sex, image statistics, features, patient pseudonym.

None of it identifies the patient. The comparison is in pedfrac/monitoring.
"""

import hmac
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pedfrac.bundle.embedding import Basis
from pedfrac.bundle.reference_profile import IMAGE, feature_names
from pedfrac.serving.images import PreparedImage

TEXTS = ("sex", "patient", "scored")


class Observer:
    """Describes images as they are scored; ``basis``: of the bundle's profile, if it has one.

    Patients become words by a secret that is forgotten with this object: images of one patient
    share a word within a run, and nobody can go back from it or follow a patient to another run.
    """

    def __init__(self, basis: Basis | None):
        self._basis = basis
        self._secret = secrets.token_bytes(32)

    @property
    def numbers(self) -> list[str]:
        """The columns that hold numbers: NaN where an image has no score or features no basis."""
        return [*IMAGE, *feature_names(len(self._basis) if self._basis else 0)]

    @property
    def columns(self) -> list[str]:
        """All columns: TEXTS (``scored`` is the time, UTC) and ``numbers``."""
        return [*TEXTS, *self.numbers]

    def describe(self, images: Sequence[PreparedImage], features: Sequence[Tensor]) -> pd.DataFrame:
        """Return a row for each image, of which all have a score.

        ``features``: parts (n, d) of what the watched network saw, the images as they are first;
        empty where it does not show them.
        """
        rows = pd.DataFrame(
            {
                "sex": [image.sex for image in images],
                "patient": [self._word(image.patient) for image in images],
                "scored": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
        numbers = np.full((len(images), len(self.numbers)), np.nan)
        numbers[:, : len(IMAGE)] = [image.statistics for image in images]
        if self._basis and features:
            numbers[:, len(IMAGE) :] = self._basis(torch.cat(list(features))[: len(images)].numpy())
        return rows.join(pd.DataFrame(numbers, columns=self.numbers))

    def _word(self, patient: str) -> str:
        if not patient:
            return ""
        return hmac.new(self._secret, patient.encode(), "sha256").hexdigest()[:16]
