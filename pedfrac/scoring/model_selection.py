"""Selection: which network scores an age group, decided on its validation images, with the reason.

Not here: test images, which must not choose, and thresholds, which come after (operating).
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from pedfrac.config.evaluation import ScoringConfig
from pedfrac.statistics.intervals import Floats, Interval
from pedfrac.statistics.patient_bootstrap import PatientBootstrap
from pedfrac.statistics.result import Result
from pedfrac.statistics.words import difference_in_words

Choice = Literal["specialist", "generalist", "average"]


class Selection(Result):
    """Which network scores an age group, as its validation images chose, and why in words."""

    choice: Choice
    why: str
    margin: float
    patients: int
    auroc: dict[str, Interval]
    gain: Interval
    gain_of_average: Interval


def select_model(
    patients: ArrayLike,
    truth: ArrayLike,
    specialist: ArrayLike,
    generalist: ArrayLike,
    config: ScoringConfig,
) -> Selection:
    """Return which network should score a group: ``choice``, the reason ``why``, and the metrics.

    ``patients``, ``truth`` and the networks' probabilities of fracture, (n,) each, of the group's
    validation images. ``gain`` is how much larger the specialist's AUROC is than the generalist's,
    with its interval paired by patients, and ``config.selection_margin`` the loss one would bear:

    - the average of both probabilities, where it is shown to be better than either;
    - the specialist, where it is shown not to be worse by the margin: ``low`` > -margin;
    - the generalist, where the specialist is shown to be worse (``high`` < 0), or where the images
      show nothing: images of one kind, fewer than ``config.selection_patients`` patients of
      either, or an average that does worse than the generalist;
    - otherwise the average: the images cannot tell the two apart, and the
      Brier score and log loss of an average are never above the mean of those of its two parts,
      since both are convex (Jensen). It costs a second network.

    The burden of proof is the specialist's, whose best epoch these images have chosen: they
    flatter it, the more so the fewer they are, while those of all ages chose the generalist's.
    """
    kinds = np.asarray(truth, bool)
    own, common = (np.asarray(one, np.float64) for one in (specialist, generalist))
    scores = {"specialist": own, "generalist": common, "average": average(own, common)}
    images = PatientBootstrap(patients, config.resamples, config.seed)
    areas = {name: images.auroc_interval(kinds, score) for name, score in scores.items()}
    gains = {
        name: images.auroc_difference(kinds, scores[name], common)
        for name in ("specialist", "average")
    }
    few = min(len(np.unique(np.asarray(patients)[some])) for some in (kinds, ~kinds))
    best = images.auroc_difference(kinds, scores["average"], own)
    choice, why = _decide(gains, best, few, config)
    return Selection(
        choice=choice,
        why=why,
        margin=config.selection_margin,
        patients=images.count,
        auroc=areas,
        gain=gains["specialist"],
        gain_of_average=gains["average"],
    )


def average(specialist: ArrayLike, generalist: ArrayLike) -> Floats:
    """Return the mean of two networks' probabilities, (n,)."""
    return (np.asarray(specialist, np.float64) + np.asarray(generalist, np.float64)) / 2


def chosen_scores(choice: Choice, specialist: ArrayLike, generalist: ArrayLike) -> Floats:
    """Return the probabilities (n,) of what was chosen."""
    if choice == "average":
        return average(specialist, generalist)
    return np.asarray(specialist if choice == "specialist" else generalist, np.float64)


def _decide(
    gains: dict[str, Interval], on_specialist: Interval, few: int, config: ScoringConfig
) -> tuple[Choice, str]:
    gain, mean = gains["specialist"], gains["average"]
    margin, least = config.selection_margin, config.selection_patients
    found = f"specialist less generalist, AUROC: {difference_in_words(gain)}"
    if gain.value is None:
        return "generalist", f"nothing tells the two apart: {gain.reason}"
    if few < least or not gain.bounds:
        return "generalist", (
            f"too few patients to tell: {few} with images of the rarer kind, {least} are asked for "
            f"({found})"
        )
    if mean.is_above(0) and on_specialist.is_above(0):
        return "average", (
            f"the average is shown to be better than either: {difference_in_words(mean)} on the "
            f"generalist, {difference_in_words(on_specialist)} on the specialist, AUROC"
        )
    if gain.is_above(-margin):
        better = "better" if gain.is_above(0) else f"not worse by {margin:g}"
        return "specialist", f"the specialist is shown to be {better}: {found}"
    if gain.is_below(0):
        return "generalist", f"the specialist is shown to be worse: {found}"
    if (mean.value or 0) < 0:
        return "generalist", (
            f"nothing is shown of the specialist, and the average does worse: {found}; average "
            f"less generalist: {difference_in_words(mean)}"
        )
    return "average", (
        f"the images cannot show that the specialist is not worse by {margin:g}: {found}; average "
        f"less generalist: {difference_in_words(mean)}"
    )
