"""Robustness: figures on films that are turned, darker, noisy, blurred, coarse or compressed.

Also under test-time augmentation, the mean score of a film and its mirrored or turned copies. Not
here: augmentation in training, and how a network scores films.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from pedfrac.config.evaluation import EvaluationConfig, RobustnessConfig
from pedfrac.errors import PedfracError
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

Films = NDArray[np.uint8]
Scores = NDArray[np.float64]
Score = Callable[[Films], Scores]
NOTE = (
    "Films are disturbed as the network sees them, after preparation; what lies beside the film "
    "stays black. Rotation and brightness go either way, by chance per film. Change: the figure "
    "on disturbed films less that on the same films undisturbed, paired by patient, at the same "
    "threshold. Intervals: 95 %, over patients."
)


class Perturbation(NamedTuple):
    """A named way to disturb films (n,S,S) with a strength in some unit."""

    name: str
    strength: float
    unit: str
    disturb: Callable[[Films], Films]


def choose_films(patients: ArrayLike, config: RobustnessConfig) -> NDArray[np.int64]:
    """Return the places of at most ``config.films`` films, ascending, of whole patients.

    Patients (n,) come in a random order of ``config.seed``, as long as there is room for the next.
    """
    _, who, counts = np.unique(np.asarray(patients), return_inverse=True, return_counts=True)
    order = np.random.default_rng(config.seed).permutation(len(counts))
    chosen = order[np.cumsum(counts[order]) <= config.films]
    return np.flatnonzero(np.isin(who, chosen))


def perturbations(config: RobustnessConfig) -> list[Perturbation]:
    """Return all ways to disturb prepared films, uint8 (n,S,S); equal films, equal results."""
    return [
        Perturbation(name, strength, unit, _of_each_film(disturb, strength, config.seed))
        for name, (unit, disturb) in WAYS.items()
        for strength in getattr(config, name)
    ]


def robustness_figures(
    score: Score,
    films: Films,
    truth: ArrayLike,
    patients: ArrayLike,
    threshold: ArrayLike,
    config: RobustnessConfig,
    evaluation: EvaluationConfig,
) -> dict[str, Any]:
    """Return the figures of films (n,S,S) as they are, disturbed, and under augmentation.

    ``score`` gives the probability (n,) of a fracture of all n films in their order, disturbed or
    not, so that it may send each to the network of its age. ``truth`` (n,), ``patients`` (n,),
    ``threshold`` one or (n,); ``evaluation`` says how intervals are made. Raises PedfracError
    where a score is no number.
    """
    measure = _Measure(truth, patients, threshold, evaluation)
    plain = scores_of(score, films, "undisturbed films")
    return {
        "films": len(films),
        "patients": measure.bootstrap.count,
        "fractured": int(measure.truth.sum()),
        "undisturbed": measure.figures(plain),
        "perturbations": [
            {"name": way.name, "strength": way.strength, "unit": way.unit}
            | measure.against(scores_of(score, way.disturb(films), way.name), plain)
            for way in perturbations(config)
        ],
        "test_time_augmentation": [
            {"name": name, "views": views} | measure.against(scores, plain)
            for name, views, scores in _augmented(score, films, plain, config)
        ],
        "note": NOTE,
    }


def film_window(film: Films) -> NDArray[np.bool_]:
    """Return where in its letterbox (S,S) a film is: the rows and columns that are not all black.

    A film whose own margin is black through and through is taken to end there.
    """
    return np.logical_and.outer(np.any(film, axis=1), np.any(film, axis=0))


def scores_of(score: Score, films: Films, what: str) -> Scores:
    """Return the scores (n,) of films; raise PedfracError where they are no numbers or not n."""
    scores = np.asarray(score(films), np.float64)
    if scores.shape != (len(films),) or not np.isfinite(scores).all():
        raise PedfracError(
            f"{what}: each of {len(films)} films must have a score that is a number, found scores "
            f"{scores.shape}, {int((~np.isfinite(scores)).sum())} of which are none"
        )
    return scores


class _Measure:
    """The figures of scores of the same films."""

    def __init__(
        self,
        truth: ArrayLike,
        patients: ArrayLike,
        threshold: ArrayLike,
        evaluation: EvaluationConfig,
    ):
        self.truth = np.asarray(truth, bool)
        self.threshold = np.asarray(threshold, np.float64)
        how = evaluation
        self.bootstrap = PatientBootstrap(patients, how.resamples, how.seed, how.interval)

    def figures(self, scores: Scores) -> dict[str, Any]:
        call, bootstrap = scores >= self.threshold, self.bootstrap
        return {
            "auroc": bootstrap.auroc_interval(self.truth, scores),
            "sensitivity": bootstrap.rate_interval(call, self.truth, "no fractured films"),
            "specificity": bootstrap.rate_interval(~call, ~self.truth, "no normal films"),
        }

    def against(self, scores: Scores, plain: Scores) -> dict[str, Any]:
        """Return the figures of scores and by how much they exceed those of others."""
        calls, before = scores >= self.threshold, plain >= self.threshold
        rate = self.bootstrap.rate_difference
        change = {
            "auroc": self.bootstrap.auroc_difference(self.truth, scores, plain),
            "sensitivity": rate(calls, before, self.truth, "no fractured films"),
            "specificity": rate(~calls, ~before, ~self.truth, "no normal films"),
        }
        return {**self.figures(scores), "change": change}


def _augmented(
    score: Score, films: Films, plain: Scores, config: RobustnessConfig
) -> Iterator[tuple[str, int, Scores]]:
    """Yield name, number of views and mean score of each test-time augmentation."""
    mirrored = scores_of(score, np.ascontiguousarray(films[:, :, ::-1]), "mirrored films")
    turned = [
        scores_of(score, _stack([_turn(film, angle) for film in films], films), "turned films")
        for angle in (-config.turn, config.turn)
    ]
    groups = {
        "mirrored": [plain, mirrored],
        f"turned by {config.turn:g} degrees either way": [plain, *turned],
        "mirrored, and turned": [plain, mirrored, *turned],
    }
    for name, views in groups.items():
        yield name, len(views), np.mean(views, axis=0)


# ---- ways to disturb a film (S,S), by a strength and a source of chance of its own --------------
def _of_each_film(
    disturb: Callable[[Films, float, Generator], Films], strength: float, seed: int
) -> Callable[[Films], Films]:
    def all_films(films: Films) -> Films:
        sources = (np.random.default_rng((seed, place)) for place in range(len(films)))
        pairs = zip(films, sources, strict=True)
        return _stack([disturb(film, strength, random) for film, random in pairs], films)

    return all_films


def _rotate(film: Films, strength: float, random: Generator) -> Films:
    return _turn(film, strength * random.choice([-1, 1]))


def _expose(film: Films, strength: float, random: Generator) -> Films:
    return cv2.convertScaleAbs(film, alpha=max(0, 1 + strength * random.choice([-1, 1])))


def _add_noise(film: Films, strength: float, random: Generator) -> Films:
    noisy = film + random.normal(0, strength * 255, film.shape) * film_window(film)
    return noisy.round().clip(0, 255).astype(np.uint8)


def _blur(film: Films, strength: float, random: Generator) -> Films:
    return cv2.GaussianBlur(film, (0, 0), strength)


def _coarsen(film: Films, strength: float, random: Generator) -> Films:
    height, width = (max(1, round(side / strength)) for side in film.shape)
    small = cv2.resize(film, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, film.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _compress(film: Films, strength: float, random: Generator) -> Films:
    _, data = cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, int(strength)])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


WAYS: dict[str, tuple[str, Callable[[Films, float, Generator], Films]]] = {
    "rotation": ("degrees", _rotate),
    "brightness": ("share", _expose),
    "noise": ("share of full scale", _add_noise),
    "blur": ("pixels", _blur),
    "resolution": ("times lower", _coarsen),
    "jpeg": ("quality of 100", _compress),
}


def _turn(film: Films, degrees: float) -> Films:
    """Turn a film about its middle, against the clock."""
    height, width = film.shape
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    return cv2.warpAffine(film, turn, (width, height), flags=cv2.INTER_LINEAR)


def _stack(films: list[Films], like: Films) -> Films:
    return np.stack(films) if films else np.empty_like(like)
