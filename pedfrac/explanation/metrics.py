"""What heat maps of an age group are measured by, as metrics.json of an explanation holds it.

Not here: how any of it is computed (localisation, faithfulness, randomisation_check).
"""

from pedfrac.statistics.intervals import Interval
from pedfrac.statistics.result import Result


class PriorMetric(Result):
    """A metric of maps beside the centre prior's; beats: shown to be better, None: unknown."""

    map: Interval
    centre_prior: Interval
    map_minus_centre_prior: Interval
    beats_centre_prior: bool | None


class MapMetric(PriorMetric):
    """The same beside chance, too."""

    chance: Interval
    map_minus_chance: Interval
    beats_chance: bool | None


class LocalisationMetrics(Result):
    """How well maps meet the fracture boxes."""

    pointing: MapMetric
    energy: MapMetric
    iou: MapMetric


class Stage(Result):
    """How alike maps stay once the weights are shuffled from the head down to a part."""

    name: str
    similarity: Interval


class RandomWeights(Result):
    """Whether maps change when the weights are shuffled; None: unknown, for the reason."""

    images: int
    draws: int
    stages: list[Stage]
    changes: bool | None
    changes_from: str | None
    reason: str | None = None
    note: str


class Faithfulness(Result):
    """Whether the probability follows the heat as pixels are removed."""

    images: int
    shares: tuple[float, ...]
    most_relevant_first: PriorMetric
    least_relevant_first: PriorMetric
    combined: PriorMetric
    note: str


class MethodMetrics(Result):
    """The metrics of one method; None: not checked."""

    localisation: LocalisationMetrics
    random_weights: RandomWeights | None = None
    faithfulness: Faithfulness | None = None


class BoxPointing(Result):
    """How often the surest box lies in a marked fracture, beside chance."""

    marks: Interval
    chance: Interval
    marks_minus_chance: Interval


class Detection(Result):
    """How well boxes find the marked fractures; without any, the reason."""

    images: int
    with_fractures: int
    froc: dict[str, Interval] | None = None
    average_precision: dict[str, Interval] | None = None
    pointing: BoxPointing | None = None
    reason: str | None = None
    note: str


class GroupExplanation(Result):
    """The heat maps of an age group; ``pointing``, ``mass``, ``chance``: of those drawn."""

    group: str
    images: int
    with_boxes: int
    networks: int
    method: str
    methods: dict[str, MethodMetrics]
    note: str
    verdicts: dict[str, int]
    pictures: list[str]
    pointing: Interval
    mass: Interval
    chance: float | None
    boxes: Detection | None = None

    @property
    def drawn(self) -> MethodMetrics:
        """The metrics of the method that is drawn."""
        return self.methods[self.method]
