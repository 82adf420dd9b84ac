"""Heads: what a network's numbers say of an image's class and, where they say it, of its age.

Every head gives probabilities of the classes by ``probabilities``, so that nothing else need know
which one a network has. Not here: the backbone (models), and training.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Laplace
from torch.nn import functional

from pedfrac.age_groups import AgeGroups
from pedfrac.config.training import HeadKind

FINEST = 0.05  # years; ages are recorded in steps of 0.1, so no error can be known to be smaller


class Head(nn.Module):
    """From ``outputs`` raw numbers per image to the loss, class probabilities and age."""

    outputs: int
    classes: int
    tells_age = False

    def forward(self, raw: Tensor) -> Tensor:
        """Return the network's output (n, m) from the raw numbers (n, outputs)."""
        return raw

    def probabilities(self, output: Tensor) -> Tensor:
        """Return the probabilities of the classes (n, k), which add up to 1, from outputs."""
        raise NotImplementedError

    def years(self, output: Tensor) -> Tensor | None:
        """Return the estimated age in years (n,) from outputs; None where none is estimated."""
        return None

    def losses(self, output: Tensor, years: Tensor) -> Tensor:
        """Return the loss of each image (n,) whose age in years (n,) is known."""
        raise NotImplementedError

    def fit(self, output: Tensor, years: Tensor) -> None:
        """Fit on validation images what training cannot determine, if anything."""


class Classes(Head):
    """A logit for each class: the outputs' softmax."""

    def __init__(self, classes: int):
        super().__init__()
        self.outputs = self.classes = classes

    def probabilities(self, output: Tensor) -> Tensor:
        """Return the softmax of the logits."""
        return output.softmax(dim=1)


class AgeHead(Head):
    """One number an image, which rises with age; in the groups' middle it is 0."""

    outputs = 1
    tells_age = True

    def __init__(self, ages: AgeGroups):
        super().__init__()
        self.ages, self.classes = ages, len(ages)
        first, last = ages.bounds[0], ages.bounds[-1]
        self.middle, self.reach = (first + last) / 2, (last - first) / 2

    def older(self, output: Tensor) -> Tensor:
        """Return the probabilities (n, k - 1) of an age of at least each bound between groups."""
        raise NotImplementedError

    def probabilities(self, output: Tensor) -> Tensor:
        """Return how far the probability of being as old falls from bound to bound.

        All ages lie between the outermost bounds, so what would lie beyond belongs to the outermost
        groups.
        """
        older = self.older(output)
        images = older.shape[0]  # not len, which an exporter takes for a constant
        ends = older.new_ones(images, 1), older.new_zeros(images, 1)
        return -torch.cat([ends[0], older, ends[1]], dim=1).diff(dim=1)


class OrdinalAge(AgeHead):
    """Whether the image is older than each of many cut points: whole years and the groups' bounds.

    CORAL (Cao, Mirjalili and Raschka, Pattern Recognit Lett 2020): the cut points share one number
    from the network and differ by a learned place, a cumulative link (McCullagh, JRSS B 1980), and
    the loss is the mean of their binary cross-entropies. The places are kept in order by learning
    the gaps between them, so that no group's probability is negative. The estimated age is the mean
    of its distribution (as in DEX, Rothe et al., IJCV 2018): the area under the probabilities of
    being as old, with ages spread evenly between neighbouring cut points.
    """

    knots: Tensor

    def __init__(self, ages: AgeGroups):
        super().__init__(ages)
        first, *between, last = map(float, ages.bounds)
        cuts = sorted({*map(float, range(math.floor(first) + 1, math.ceil(last))), *between})
        self.between = [cuts.index(bound) for bound in between]
        self.register_buffer("knots", torch.tensor([first, *cuts, last]), persistent=False)
        # at first, odds change by e a year
        self.first = nn.Parameter(torch.tensor([cuts[0] - self.middle]))
        gaps = torch.tensor([b - a for a, b in pairwise(cuts)])
        self.gaps = nn.Parameter(gaps.expm1().log())

    def forward(self, raw: Tensor) -> Tensor:
        """Return the logits (n, cut points) of being at least as old as each."""
        places = torch.cat([self.first, functional.softplus(self.gaps)]).cumsum(dim=0)
        return self.reach * raw.float() - places

    def older(self, output: Tensor) -> Tensor:
        """Return the probabilities at the cut points that are bounds of groups."""
        return output[:, self.between].sigmoid()

    def years(self, output: Tensor) -> Tensor:
        """Return the mean age."""
        older = functional.pad(functional.pad(output.sigmoid(), (1, 0), value=1.0), (0, 1))
        return self.knots[0] + torch.trapezoid(older, self.knots, dim=1)

    def losses(self, output: Tensor, years: Tensor) -> Tensor:
        """Return the mean binary cross-entropy of the cut points."""
        target = (years[:, None] >= self.knots[1:-1]).to(output.dtype)
        losses = functional.binary_cross_entropy_with_logits(output, target, reduction="none")
        return losses.mean(dim=1)


class RegressedAge(AgeHead):
    """The age in years, with errors that follow a Laplace distribution.

    Training takes the absolute error, whose least is the greatest likelihood of such errors. Their
    ``spread`` is the mean absolute error on the validation images, its estimate of greatest
    likelihood; a group's probability is the integral between its bounds.
    """

    spread: Tensor
    cuts: Tensor

    def __init__(self, ages: AgeGroups):
        super().__init__(ages)
        self.register_buffer("cuts", torch.tensor(ages.bounds[1:-1]), persistent=False)
        self.register_buffer("spread", torch.tensor(self.reach))

    def forward(self, raw: Tensor) -> Tensor:
        """Return the age in years (n, 1); it may lie beyond the bounds."""
        return self.middle + self.reach * raw.float()

    def older(self, output: Tensor) -> Tensor:
        """Return the integral of the errors' distribution above each bound between groups."""
        return Laplace(0.0, self.spread, validate_args=False).cdf(output - self.cuts)

    def years(self, output: Tensor) -> Tensor:
        """Return the estimated age, within the outermost bounds."""
        return output[:, 0].clamp(self.ages.bounds[0], self.ages.bounds[-1])

    def losses(self, output: Tensor, years: Tensor) -> Tensor:
        """Return the absolute errors as shares of half the range."""
        return (output[:, 0] - years).abs() / self.reach

    def fit(self, output: Tensor, years: Tensor) -> None:
        """Take the spread from the errors on validation images."""
        self.spread.fill_((output[:, 0] - years).abs().mean().clamp(min=FINEST))


def make_head(kind: HeadKind, ages: AgeGroups) -> Head:
    """Return the head of an age classifier, untrained."""
    if kind == "classes":
        return Classes(len(ages))
    return {"ordinal": OrdinalAge, "regression": RegressedAge}[kind](ages)
