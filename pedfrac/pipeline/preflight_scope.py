"""What a preflight is for: a whole retraining, or the training of one network."""

from collections.abc import Sequence
from dataclasses import dataclass

from pedfrac.errors import PedfracError

ALL, AGE, GENERALIST = "all", "age", "generalist"


@dataclass(frozen=True)
class Scope:
    """What is trained: all networks, ``age``, ``generalist``, or the specialist of an age group.

    ``alone``: nothing follows the training: no heat maps, and nothing in the results folder.
    """

    trained: str = ALL
    alone: bool = False

    @property
    def whole(self) -> bool:
        """Whether it is a whole retraining."""
        return self.trained == ALL

    @property
    def trains_age(self) -> bool:
        """Whether an age classifier is trained."""
        return self.trained in (ALL, AGE)

    @property
    def trains_fracture(self) -> bool:
        """Whether a fracture network is trained."""
        return self.trained != AGE

    def require_known(self, names: Sequence[str]) -> None:
        """Raise PedfracError where no network is called so; ``names`` of the age groups."""
        if self.trained not in (ALL, AGE, GENERALIST, *names):
            allowed = ", ".join((GENERALIST, AGE, *names))
            raise PedfracError(f"model {self.trained!r}; allowed are {allowed}")


WHOLE = Scope()
