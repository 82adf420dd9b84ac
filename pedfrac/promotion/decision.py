"""The decision of the gate: what is compared, each criterion and the verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from pedfrac.config.promotion import GateConfig
from pedfrac.errors import PedfracError
from pedfrac.evaluation.evaluation import Evaluation
from pedfrac.explanation.metrics import GroupExplanation
from pedfrac.statistics.intervals import Interval
from pedfrac.statistics.words import difference_in_words, interval_in_words

State = Literal["held", "failed", "not known", "not asked", "changed"]


@dataclass(frozen=True)
class Model:
    """A version as the gate sees it; None is what could not be had, with the reason in ``faults``.

    ``images``: predictions of the test images (see ``evaluation``); ``metrics``: what was computed
    of them. ``explanation``: metrics of the heat maps by age group. ``learned``: patients that
    trained or validated any network. ``shared``: patients that two parts of the split share.
    ``faults``: by the name of an artifact, what is missing or does not verify; ``verified``: those
    that do. ``settings``: how it was made, by what may change (see ``GateConfig.may_change``).
    """

    version: int
    images: pd.DataFrame | None
    metrics: Evaluation | None
    explanation: Mapping[str, GroupExplanation] | None
    learned: frozenset[int] | None
    shared: int | None
    settings: Mapping[str, Any]
    faults: Mapping[str, str] = field(default_factory=dict)
    verified: tuple[str, ...] = ()

    @cached_property
    def called(self) -> pd.DataFrame:
        """The test images with the bundle's call of each, by filestem."""
        if self.images is None or self.metrics is None:
            raise PedfracError(f"version {self.version}: its evaluation is not there")
        limits = np.asarray(self.metrics.operating.thresholds["bundle"].groups)
        own = limits[self.images["group"].to_numpy(dtype=np.int64)]
        return self.images.assign(call=self.images["bundle"] >= own).set_index("filestem")


class Criterion(BaseModel):
    """One thing that must hold: what is asked, of whom, what was found."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    part: str
    name: str
    of: str
    required: str
    state: State
    reason: str = ""
    metric: Interval | None = None
    champion: Interval | None = None
    challenger: Interval | None = None
    images: int | None = None
    patients: int | None = None

    @property
    def blocks(self) -> bool:
        """Whether nothing may be promoted because of this: it failed, or nobody knows."""
        return self.state in ("failed", "not known")

    @property
    def is_difference(self) -> bool:
        """Whether the metric is that of the challenger less the champion's."""
        return self.metric is not None and self.metric != self.challenger

    @property
    def found(self) -> str:
        """The metric with its interval, a difference with its sign."""
        if self.metric is None:
            return ""
        written = difference_in_words if self.is_difference else interval_in_words
        return written(self.metric)

    def in_words(self) -> str:
        """Return what was asked and found, in a line."""
        found = self.found
        told = "; ".join(part for part in (found, self.reason) if part)
        return f"{self.name} ({self.of}): {self.state}, {self.required}" + (
            f", found {told}" if told else ""
        )


class Decision(BaseModel):
    """What the gate says of a challenger, and by which criteria.

    ``changed``: each criterion that differs from the operator's, as ``name operator's → asked``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    challenger: int
    champion: int | None
    passed: bool
    criteria: tuple[Criterion, ...]
    images: int | None
    patients: int | None
    config: GateConfig
    changed: tuple[str, ...] = ()

    @property
    def blocking(self) -> list[Criterion]:
        """The criteria for which the challenger is refused."""
        return [one for one in self.criteria if one.blocks]

    @property
    def title(self) -> str:
        """What was compared with what."""
        against = "no champion" if self.champion is None else f"champion version {self.champion}"
        return f"Challenger version {self.challenger} against {against}"

    def in_words(self) -> str:
        """Return the outcome in a line; every criterion that refuses is named."""
        if self.passed:
            held = sum(one.state == "held" for one in self.criteria)
            return f"{self.title}: all {held} criteria hold{self._changed_in_words()}"
        reasons = "; ".join(one.in_words() for one in self.blocking)
        return f"{self.title}: refused by the gate: {reasons}"

    def _changed_in_words(self) -> str:
        told = "; ".join(self.changed)
        return f". Criteria differ from the operator's: {told}" if told else ""
