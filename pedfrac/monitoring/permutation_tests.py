"""Shifts: is a window of images distributed as the reference was? Statistics and their null draws.

Arrays in, plain numbers out; which columns are compared, and in what words, is told by drift.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Weights = NDArray[np.float32]
CHUNK = 4_000_000  # image weights held at a time
FEW = 20  # patients of the reference in a stratum that may be drawn from
BINS = 10  # of the population stability index
NOISE = 1e-5  # of sums of weights in single precision: what is less is nothing
EMPTY = 0.5  # images that an empty bin counts for, so that its logarithm exists


@dataclass(frozen=True, eq=False)
class Images:
    """Images of reference and window, and which of them belong together.

    ``window`` (n,) bool; ``patient`` (n,) numbers, of which none is in both; ``stratum`` (n,):
    kinds of images whose shares may differ without being a change, since they are looked at by
    themselves. ``known``: whether the window's patients are known. ``draws`` of the null
    distribution with ``seed``.
    """

    window: NDArray[np.bool_]
    patient: NDArray[np.int64]
    stratum: NDArray[np.int64]
    known: bool
    draws: int
    seed: int

    def weights(self, some: NDArray[np.bool_]) -> Iterator[tuple[Weights, Weights]]:
        """Yield weights of window and reference (c, k) for some images (n,), in parts.

        The first row is what was seen. In the others there is no change within strata. Where the
        window's patients are known, those of a stratum (that of most of their images) are dealt out
        anew, as many to each side: an exact test if patients of a stratum, each with all images,
        are exchangeable. Where they are not, images of a window may belong together without our
        knowing. Both sides are then drawn from the reference's patients with replacement, the
        window with its own number of images and mix of strata: so its images are taken to come in
        patients of as many images as the reference's. Each side sums to 1, the reference with the
        strata's shares of the window; strata that one side lacks do not count.
        """
        patient = np.unique(self.patient[some], return_inverse=True)[1]
        window, strata = self.window[some], self._strata(some)
        random = np.random.default_rng(self.seed)
        deal = _deal if self.known else _draw
        yield self.seen(some)
        step = max(1, CHUNK // max(1, len(window)))
        for start in range(0, self.draws, step):
            rows = min(step, self.draws - start)
            yield balanced(*deal(random, rows, patient, window, strata), strata)

    def seen(self, some: NDArray[np.bool_]) -> tuple[Weights, Weights]:
        """Return the weights of window and reference (1, k) as they were seen."""
        first = self.window[some][None].astype(np.float32)
        return balanced(first, 1 - first, self._strata(some))

    def _strata(self, some: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the stratum of some images, (k, s).

        Where both sides are drawn from the reference, its few patients of a rare stratum would
        stand for all there may be: such strata are one then.
        """
        stratum = np.unique(self.stratum[some], return_inverse=True)[1]
        if not self.known:
            reference = ~self.window[some]
            pairs = np.unique(
                np.stack([stratum, self.patient[some]])[:, reference], axis=1
            )  # of a stratum and a patient in it
            patients = np.bincount(pairs[0], minlength=stratum.max() + 1)
            stratum = np.where(patients[stratum] < FEW, stratum.max() + 1, stratum)
        return np.asarray(stratum[:, None] == np.unique(stratum))


def _deal(
    random: np.random.Generator,
    rows: int,
    patient: NDArray[np.int64],
    window: NDArray[np.bool_],
    strata: NDArray[np.bool_],
) -> tuple[Weights, Weights]:
    """Deal patients out to both sides, stratum by stratum; return sides of images (rows, n)."""
    owner = np.zeros(patient.max() + 1, np.float32)
    owner[patient[window]] = 1
    own = _stratum_of_patients(patient, strata)
    dealt = np.tile(owner, (rows, 1))
    for stratum in np.unique(own):
        dealt[:, own == stratum] = random.permuted(dealt[:, own == stratum], axis=1)
    return dealt[:, patient], 1 - dealt[:, patient]


def _draw(
    random: np.random.Generator,
    rows: int,
    patient: NDArray[np.int64],
    window: NDArray[np.bool_],
    strata: NDArray[np.bool_],
) -> tuple[Weights, Weights]:
    """Draw both sides from the reference's patients; return images' counts (rows, n)."""
    owners, patient_of = np.unique(patient[~window], return_inverse=True)
    ours, theirs = (strata[side].mean(axis=0) for side in (window, ~window))
    odds = np.divide(ours, theirs, out=np.zeros_like(ours), where=theirs > 0)
    share = odds[_stratum_of_patients(patient_of, strata[~window])]
    if not share.any():
        share = np.ones(len(owners))
    number = max(1, round(window.sum() / (~window).sum() * len(owners)))
    sides = []
    for count, shares in ((number, share), (len(owners), np.ones(len(owners)))):
        side = np.zeros((rows, len(window)), np.float32)
        counts = random.multinomial(count, shares / shares.sum(), size=rows)
        side[:, ~window] = counts[:, patient_of]
        sides.append(side)
    return sides[0], sides[1]


def _stratum_of_patients(patient: NDArray[np.int64], strata: NDArray[np.bool_]) -> Any:
    """Return the stratum of most images of each patient, the first of those with as many."""
    images = np.zeros((patient.max() + 1, strata.shape[1]))
    np.add.at(images, patient, strata)
    return images.argmax(axis=1)


def balanced(
    window: Weights, reference: Weights, strata: NDArray[np.bool_]
) -> tuple[Weights, Weights]:
    """Return weights (c, n) that sum to 1, the reference's strata (n, s) with the window's shares.

    Known in epidemiology as direct standardisation.
    """
    kinds = strata.astype(np.float32)
    ours, theirs = window @ kinds, reference @ kinds
    both = (ours > 0) & (theirs > 0)
    factor = np.divide(ours, theirs, out=np.zeros_like(ours), where=both)
    place = strata.argmax(axis=1)
    reference = reference * factor[:, place]
    window = window * both[:, place]
    total = window.sum(axis=1, keepdims=True)
    scale = np.divide(1, total, out=np.zeros_like(total), where=total > 0)
    return window * scale, reference * scale


Statistic = Callable[[Weights, Weights], Floats]
"""How far window and reference, weights (c, n) of the same images, lie apart, (c,)."""


def kolmogorov_smirnov(values: ArrayLike) -> Statistic:
    """Return the largest distance of the distribution functions of values (n,)."""
    ends, order = _steps(np.asarray(values, np.float64))

    def distance(window: Weights, reference: Weights) -> Floats:
        gaps = (window - reference)[:, order].cumsum(axis=1)[:, ends]
        return _without_noise(np.abs(gaps).max(axis=1))

    return distance


def chi_square(kinds: NDArray[np.bool_]) -> Statistic:
    """Return the symmetric chi-square distance of the shares of kinds (n, k)."""
    columns = kinds.astype(np.float32)

    def distance(window: Weights, reference: Weights) -> Floats:
        ours, theirs = window @ columns, reference @ columns
        both = ours + theirs
        squares = np.square(_without_noise(ours - theirs))
        parts = np.divide(squares, both, out=np.zeros_like(squares), where=both > 0)
        return np.asarray(parts.sum(axis=1), np.float64)

    return distance


def energy_distance(points: Floats) -> Statistic:
    """Return the energy distance of whitened points (n, d), as a squared shift.

    2 E|X-Y| - E|X-X'| - E|Y-Y'|, zero only where the distributions are the same (Székely and Rizzo,
    J Stat Plan Inference 2013), times 2 d / E|X-Y|: for normal points whose mean has moved by a few
    tenths of a standard deviation that is about the square of the shift, and the population
    stability index of one such number is, too.
    """
    from scipy.spatial.distance import cdist

    apart = cdist(points, points).astype(np.float32)

    def distance(window: Weights, reference: Weights) -> Floats:
        far = reference @ apart
        between = np.einsum("cn,cn->c", far, window)
        within = np.einsum("cn,cn->c", window @ apart, window)
        within += np.einsum("cn,cn->c", far, reference)
        ratio = np.divide(within, between, out=np.full_like(within, 2), where=between > 0)
        return 2 * points.shape[1] * _without_noise(2 - ratio)

    return distance


def stability_index(kinds: NDArray[np.bool_], window: int, reference: int) -> Statistic:
    """Return the population stability index of the shares of kinds (n, k).

    ``window`` and ``reference``: the numbers of images, which say what an empty kind may hold.
    """
    columns = kinds.astype(np.float32)

    def index(ours: Weights, theirs: Weights) -> Floats:
        a = np.maximum(ours @ columns, EMPTY / window)
        b = np.maximum(theirs @ columns, EMPTY / reference)
        return np.asarray(((a - b) * np.log(a / b)).sum(axis=1), np.float64)

    return index


def quantile_bins(values: Floats, of: Floats) -> NDArray[np.bool_]:
    """Return which of BINS each value (n,) lies in, (n, k), with equally many ``of`` in each."""
    edges = np.unique(np.quantile(of, np.arange(1, BINS) / BINS))
    place = np.searchsorted(edges, values, side="right")
    return np.asarray(place[:, None] == np.arange(len(edges) + 1))


def compare(images: Images, some: NDArray[np.bool_], test: Statistic, size: Statistic) -> Any:
    """Return ``p`` of a test on some images (n,), and the ``size`` of the change beyond chance.

    The size is a statistic less its mean over the null draws, not below 0.
    """
    tests, sizes = zip(
        *((test(*weights), size(*weights)) for weights in images.weights(some)), strict=True
    )
    (seen, *_), (change, *_) = tests[0], sizes[0]
    if not images.seen(some)[0].any():
        return {"p": 1.0, "size": 0.0}  # the sides share no stratum
    null, by_chance = np.concatenate(tests[1:]), np.concatenate(sizes[1:])
    # equal distances may differ in their last digit
    as_far = int((null >= seen * (1 - 1e-6)).sum())
    return {
        "p": (1 + as_far) / (1 + len(null)),
        "size": max(0.0, float(change - by_chance.mean())),
    }


def _without_noise(gaps: Any) -> Floats:
    """Return gaps without those that rounding makes: patients may have as much of each kind."""
    return np.where(np.abs(gaps) < NOISE, 0.0, gaps).astype(np.float64)


def _steps(values: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places in order after which a value rises, and the order."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    return ends, order
