"""Robustness: metrics on images that are turned, darker, noisy, blurred, coarse or compressed.

Also under test-time augmentation, the mean score of an image and its mirrored or turned copies. Not
here: augmentation in training, and how a network scores images.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from pedfrac.config.evaluation import IntervalConfig, RobustnessConfig
from pedfrac.errors import PedfracError
from pedfrac.evaluation.rows import Difference, difference
from pedfrac.statistics.intervals import Interval
from pedfrac.statistics.patient_bootstrap import PatientBootstrap
from pedfrac.statistics.result import Result

Images = NDArray[np.uint8]
Scores = NDArray[np.float64]
Score = Callable[[Images], Scores]
NOTE = (
    "Images are disturbed as the network sees them, after preparation; what lies beside the image "
    "stays black. Rotation and brightness go either way, by chance per image. Change: the metric "
    "on disturbed images less that on the same images undisturbed, paired by patient, at the same "
    "threshold. Intervals: 95 %, over patients."
)


class CallMetrics(Result):
    """Metrics of the same images, scored once."""

    auroc: Interval
    sensitivity: Interval
    specificity: Interval


class Disturbed(CallMetrics):
    """Metrics of disturbed images; change: how much they exceed those of undisturbed ones."""

    name: str
    strength: float
    unit: str
    change: Difference


class Augmented(CallMetrics):
    """Metrics of mean scores over views of an image; change: what is gained on one view."""

    name: str
    views: int
    change: Difference


class Robustness(Result):
    """Metrics on images as they are, disturbed, and under test-time augmentation."""

    images: int
    patients: int
    fractured: int
    undisturbed: CallMetrics
    perturbations: list[Disturbed]
    test_time_augmentation: list[Augmented]
    note: str


class Perturbation(NamedTuple):
    """A named way to disturb images (n,S,S) with a strength in some unit."""

    name: str
    strength: float
    unit: str
    disturb: Callable[[Images], Images]


def choose_images(patients: ArrayLike, config: RobustnessConfig) -> NDArray[np.int64]:
    """Return the places of at most ``config.images`` images, ascending, of whole patients.

    Patients (n,) come in a random order of ``config.seed``, as long as there is room for the next.
    """
    _, who, counts = np.unique(np.asarray(patients), return_inverse=True, return_counts=True)
    order = np.random.default_rng(config.seed).permutation(len(counts))
    chosen = order[np.cumsum(counts[order]) <= config.images]
    return np.flatnonzero(np.isin(who, chosen))


def perturbations(config: RobustnessConfig) -> list[Perturbation]:
    """Return all ways to disturb prepared images, uint8 (n,S,S); equal images, equal results."""
    return [
        Perturbation(name, strength, unit, _of_each_image(disturb, strength, config.seed))
        for name, (unit, disturb) in WAYS.items()
        for strength in getattr(config, name)
    ]


def robustness_metrics(
    score: Score,
    images: Images,
    truth: ArrayLike,
    patients: ArrayLike,
    threshold: ArrayLike,
    config: RobustnessConfig,
    evaluation: IntervalConfig,
) -> Robustness:
    """Return the metrics of images (n,S,S) as they are, disturbed, and under augmentation.

    ``score`` gives the probability (n,) of a fracture of all n images in their order, disturbed or
    not, so that it may send each to the network of its age. ``truth`` (n,), ``patients`` (n,),
    ``threshold`` one or (n,); ``evaluation`` says how intervals are made. Raises PedfracError
    where a score is no number.
    """
    measure = _Measure(truth, patients, threshold, evaluation)
    plain = scores_of(score, images, "undisturbed images")
    return Robustness(
        images=len(images),
        patients=measure.bootstrap.count,
        fractured=int(measure.truth.sum()),
        undisturbed=measure.metrics(plain),
        perturbations=[
            Disturbed(
                name=way.name,
                strength=way.strength,
                unit=way.unit,
                change=measure.change(scores, plain),
                **dict(measure.metrics(scores)),
            )
            for way in perturbations(config)
            for scores in [scores_of(score, way.disturb(images), way.name)]
        ],
        test_time_augmentation=[
            Augmented(
                name=name,
                views=views,
                change=measure.change(scores, plain),
                **dict(measure.metrics(scores)),
            )
            for name, views, scores in _augmented(score, images, plain, config)
        ],
        note=NOTE,
    )


def image_window(image: Images) -> NDArray[np.bool_]:
    """Return where in its letterbox (S,S) an image is: the rows and columns that are not all black.

    An image whose own margin is black through and through is taken to end there.
    """
    return np.logical_and.outer(np.any(image, axis=1), np.any(image, axis=0))


def scores_of(score: Score, images: Images, what: str) -> Scores:
    """Return the scores (n,) of images; raise PedfracError where they are no numbers or not n."""
    scores = np.asarray(score(images), np.float64)
    if scores.shape != (len(images),) or not np.isfinite(scores).all():
        raise PedfracError(
            f"{what}: each of {len(images)} images must have a score that is a number, found "
            f"scores {scores.shape}, {int((~np.isfinite(scores)).sum())} of which are none"
        )
    return scores


class _Measure:
    """The metrics of scores of the same images."""

    def __init__(
        self,
        truth: ArrayLike,
        patients: ArrayLike,
        threshold: ArrayLike,
        evaluation: IntervalConfig,
    ):
        self.truth = np.asarray(truth, bool)
        self.threshold = np.asarray(threshold, np.float64)
        how = evaluation
        self.bootstrap = PatientBootstrap(patients, how.resamples, how.seed)

    def metrics(self, scores: Scores) -> CallMetrics:
        call, bootstrap = scores >= self.threshold, self.bootstrap
        return CallMetrics(
            auroc=bootstrap.auroc_interval(self.truth, scores),
            sensitivity=bootstrap.rate_interval(call, self.truth, "no fractured images"),
            specificity=bootstrap.rate_interval(~call, ~self.truth, "no normal images"),
        )

    def change(self, scores: Scores, plain: Scores) -> Difference:
        """Return by how much the metrics of scores exceed those of others."""
        calls = scores >= self.threshold, plain >= self.threshold
        return difference(self.bootstrap, self.truth, (scores, plain), calls)


def _augmented(
    score: Score, images: Images, plain: Scores, config: RobustnessConfig
) -> Iterator[tuple[str, int, Scores]]:
    """Yield name, number of views and mean score of each test-time augmentation."""
    mirrored = scores_of(score, np.ascontiguousarray(images[:, :, ::-1]), "mirrored images")
    turned = [
        scores_of(score, _stack([_turn(image, angle) for image in images], images), "turned images")
        for angle in (-config.turn, config.turn)
    ]
    groups = {
        "mirrored": [plain, mirrored],
        f"turned by {config.turn:g} degrees either way": [plain, *turned],
        "mirrored, and turned": [plain, mirrored, *turned],
    }
    for name, views in groups.items():
        yield name, len(views), np.mean(views, axis=0)


# ---- ways to disturb an image (S,S), by a strength and a source of chance of its own
# --------------
def _of_each_image(
    disturb: Callable[[Images, float, Generator], Images], strength: float, seed: int
) -> Callable[[Images], Images]:
    def all_images(images: Images) -> Images:
        sources = (np.random.default_rng((seed, place)) for place in range(len(images)))
        pairs = zip(images, sources, strict=True)
        return _stack([disturb(image, strength, random) for image, random in pairs], images)

    return all_images


def _rotate(image: Images, strength: float, random: Generator) -> Images:
    return _turn(image, strength * random.choice([-1, 1]))


def _expose(image: Images, strength: float, random: Generator) -> Images:
    return cv2.convertScaleAbs(image, alpha=max(0, 1 + strength * random.choice([-1, 1])))


def _add_noise(image: Images, strength: float, random: Generator) -> Images:
    noisy = image + random.normal(0, strength * 255, image.shape) * image_window(image)
    return noisy.round().clip(0, 255).astype(np.uint8)


def _blur(image: Images, strength: float, random: Generator) -> Images:
    return cv2.GaussianBlur(image, (0, 0), strength)


def _coarsen(image: Images, strength: float, random: Generator) -> Images:
    height, width = (max(1, round(side / strength)) for side in image.shape)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, image.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _compress(image: Images, strength: float, random: Generator) -> Images:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(strength)])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


WAYS: dict[str, tuple[str, Callable[[Images, float, Generator], Images]]] = {
    "rotation": ("degrees", _rotate),
    "brightness": ("share", _expose),
    "noise": ("share of full scale", _add_noise),
    "blur": ("pixels", _blur),
    "resolution": ("times lower", _coarsen),
    "jpeg": ("quality of 100", _compress),
}


def _turn(image: Images, degrees: float) -> Images:
    """Turn an image about its middle, against the clock."""
    height, width = image.shape
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    return cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_LINEAR)


def _stack(images: list[Images], like: Images) -> Images:
    return np.stack(images) if images else np.empty_like(like)
