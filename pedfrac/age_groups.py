"""Age groups: one object cuts ages for training, routing and reporting alike."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class AgeGroups:
    """Intervals of age in years: right-open, but the last bound belongs to the last group."""

    bounds: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def assign(self, ages: ArrayLike) -> NDArray[np.int64]:
        """Return the group index of each age in years; -1 where it is NaN or in no group."""
        years = np.asarray(ages, dtype=np.float64)
        index = np.searchsorted(self.bounds, years, side="right") - 1
        index = np.where(years == self.bounds[-1], len(self) - 1, index)
        outside = (index >= len(self)) | np.isnan(years)
        return np.where(outside, -1, index).astype(np.int64)

    def name(self, group: int) -> str:
        """Return the interval in words that fit a folder name and a table, such as ``1.5-5y``."""
        return f"{self.bounds[group]:g}-{self.bounds[group + 1]:g}y"

    @property
    def names(self) -> list[str]:
        """The names of all groups, youngest first."""
        return [self.name(group) for group in range(len(self))]
