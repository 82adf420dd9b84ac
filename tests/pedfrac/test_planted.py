"""Made-up predictions with known truth: the evaluation finds what was planted, and nothing else."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import norm

from pedfrac.age_groups import AgeGroups
from pedfrac.config.evaluation import EvaluationConfig
from pedfrac.evaluation.evaluation import evaluate
from pedfrac.scoring.scorer import fit_scorers, scored, select_networks

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning", "error::UserWarning")

AGES = AgeGroups((0, 5, 10, 15, 19))
GROUPS = len(AGES)
# examinations are alike here, and the point estimate is to be met, not its lower bound
CONFIG = EvaluationConfig(resamples=200, intended="all examinations", confidence=0)


@dataclass(frozen=True)
class World:
    """What is true of the images: distances are of fractured from normal ones in deviations."""

    specialists: tuple[float, ...] = (2.5,) * GROUPS
    generalist: float = 2.5
    overconfidence: float = 1.0
    prevalence: float = 0.55
    cast_distance: float | None = None
    wrong_route: float = 0.0
    same_noise: bool = False  # all networks see the same

    def images(self, count, seed):
        random = np.random.default_rng(seed)
        patient = random.integers(0, count // 2, count)
        truth = random.random(count) < self.prevalence
        age = random.uniform(0, 19, count)
        table = pd.DataFrame(
            {
                "filestem": [f"{number:05d}" for number in range(count)],
                "patient_id": patient,
                "study_number": random.integers(1, 3, count),
                "age": age,
                "group": AGES.assign(age),
                "fracture_visible": truth,
                "gender": random.choice(["M", "F"], count),
                "laterality": random.choice(["L", "R"], count),
                "projection": random.integers(1, 3, count),
                "pixel_spacing": random.choice([0.144, 0.143], count),
                "ao_classification": "",
                **{
                    name: random.random(count) < 0.2
                    for name in ("cast", "initial_exam", "osteopenia", "diagnosis_uncertain")
                },
            }
        )
        shared = np.sqrt(0.3) * random.normal(size=count // 2)[patient]
        noise = [shared + np.sqrt(0.7) * random.normal(size=count) for _ in range(GROUPS + 1)]
        if self.same_noise:
            noise = noise[:1] * (GROUPS + 1)
        distances = dict(zip(("generalist", *range(GROUPS)), self._distances(), strict=True))
        for (name, distance), own in zip(distances.items(), noise, strict=True):
            table[f"network_{name}"] = self._probability(distance, truth, own, table["cast"])
        wrong = random.random(count) < self.wrong_route
        step = random.choice([-1, 1], count)
        inside = np.where((table["group"] + step).between(0, GROUPS - 1), step, -step)
        table["group_seen"] = np.where(wrong, table["group"] + inside, table["group"])
        told = np.full((count, GROUPS), 0.04)
        told[np.arange(count), table["group_seen"]] = 1 - 0.04 * (GROUPS - 1)
        return table.assign(**{f"age_{group}": told[:, group] for group in range(GROUPS)})

    def _distances(self):
        return (self.generalist, *self.specialists)

    def _probability(self, distance, truth, noise, cast):
        seen = np.full(len(truth), distance)
        if self.cast_distance is not None:
            seen = np.where(cast, self.cast_distance, seen)
        place = seen * truth + noise
        odds = distance * (place - distance / 2) + logit(self.prevalence)
        return expit(self.overconfidence * odds)


def area(distance):
    return norm.cdf(distance / np.sqrt(2))


def found_in(world, seed=1, count=3000):
    """Choose, fit and judge as a retraining does; return the choices and the metrics."""
    validation, test, training = (world.images(count, seed + step) for step in range(3))
    chosen = select_networks(validation, GROUPS, CONFIG)
    scorers = fit_scorers(validation, [one.choice for one in chosen], CONFIG)
    return chosen, evaluate(scored(test, scorers), training, AGES, scorers, CONFIG)


def holds(interval, truth, slack=0.0):
    return interval.low - slack <= truth <= interval.high + slack


def differing(metrics):
    return {
        (row.name, name)
        for row in metrics.subgroups.subgroups
        for name, metric in row.metrics.items()
        if metric.differs
    }


@pytest.fixture(scope="module")
def nothing():
    return found_in(World(same_noise=True))


@pytest.fixture(scope="module")
def planted():
    return found_in(
        World(
            specialists=(2.8, 2.8, 0.8, 2.8),
            generalist=2.0,
            overconfidence=2.5,
            wrong_route=0.2,
            prevalence=0.65,
        )
    )


def test_nothing_is_found_where_nothing_is(nothing):
    chosen, metrics = nothing
    assert differing(metrics) == set()
    whole = metrics.groups[0]
    assert holds(whole.models["bundle"].auroc, area(2.5))
    for row in metrics.groups[1:]:
        # of images scored alike, even calibration, which is rising, changes no area
        assert row.differences["bundle less generalist"].auroc.value == pytest.approx(0)
    after = metrics.calibration.groups[0].after
    assert holds(after.slope, 1)
    assert holds(after.intercept, 0)
    assert after.ece.low < 0.005
    assert metrics.routing.errors["all"].images == 0
    assert metrics.routing.doubtful_images == 0
    for name in ("sensitivity", "specificity", "auroc"):
        assert getattr(metrics.routing.routes["predicted age"].change, name).value == 0
    # of networks that see the same, none is said to be better or worse
    assert all(one.gain.value == 0 for one in chosen)
    baseline = whole.baselines["age, sex, projection, side"]
    assert holds(baseline, 0.5, slack=0.01)
    assert all(gain.low > 0.4 for gain in whole.above_baselines.values())


def test_prevalence_and_area_are_found(planted):
    _, metrics = planted
    rows = metrics.groups
    assert rows[0].fractured / rows[0].images == pytest.approx(0.65, abs=0.03)
    truths = [area(2.8), area(2.8), area(2.0), area(2.8)]
    for row, truth in zip(rows[1:], truths, strict=True):
        # intervals of 95 %: a twentieth of all may miss the truth, by little
        assert holds(row.models["bundle"].auroc, truth, slack=0.005)


def test_the_worse_specialist_is_not_taken(planted):
    chosen, metrics = planted
    assert [one.choice for one in chosen] == [
        "specialist",
        "specialist",
        "generalist",
        "specialist",
    ]
    assert "shown to be worse" in chosen[2].why
    own = metrics.groups[3].differences["specialist less generalist"].auroc
    assert own.high < 0
    assert holds(own, area(0.8) - area(2.0))
    assert metrics.groups[1].differences["specialist less generalist"].auroc.low > 0


def test_miscalibration_is_found_and_mended(planted):
    _, metrics = planted
    for row in (metrics.calibration.groups[group] for group in (1, 2, 4)):
        assert holds(row.before.slope, 1 / 2.5, slack=0.01)
        assert holds(row.after.slope, 1, slack=0.02)
    whole = metrics.calibration.groups[0]
    assert whole.change.brier.high < 0
    assert whole.before.ece.low > 0.01
    assert whole.after.ece.value < whole.before.ece.value / 2


def test_sensitivity_is_what_was_aimed_at(planted):
    _, metrics = planted
    for level in (metrics.groups, metrics.studies.groups):
        assert level[0].models["bundle"].sensitivity.value == pytest.approx(0.95, abs=0.02)


def test_studies_are_more_often_fractured_than_images(planted):
    images, studies = (part.groups[0] for part in (planted[1], planted[1].studies))
    share = [row.fractured / row.images for row in (images, studies)]
    assert studies.images < images.images
    assert share[1] > share[0]
    assert studies.patients == images.patients


def test_the_error_of_the_router_is_found_with_its_cost(planted):
    routing = planted[1].routing
    assert holds(routing.errors["all"].share, 0.2, slack=0.005)
    assert routing.errors["far"].images == 0
    # A fifth of the images are scored by others' networks, but none of these is blind: it costs
    # little, and the classifier's metrics say as much as the routes'.
    assert planted[1].age.accuracy.value == pytest.approx(1 - routing.errors["all"].share.value)
    assert routing.routes["predicted age"].change.auroc.high < 0
    assert routing.doubtful_images == routing.errors["all"].images


def test_a_subgroup_in_which_the_models_fail_is_found_and_no_other():
    metrics = found_in(World(cast_distance=0.5, same_noise=True), seed=11)[1]
    found = differing(metrics)
    assert {("cast", "auroc"), ("no cast", "auroc"), ("cast", "sensitivity")} <= found
    # thresholds, each set for an age group, let age groups truly differ in specificity
    kinds = {row.name: row.attribute for row in metrics.subgroups.subgroups}
    assert {kinds[name] for name, _ in found} <= {"cast", "age and sex"}
    rows = {row.name: row.models["bundle"] for row in metrics.subsets}
    assert rows["cast"].auroc.high < rows["no cast"].auroc.low


@pytest.mark.parametrize(
    ("said", "truth"),
    [("truth", 1.0), ("nothing", 0.5), ("noise", 0.5)],
)
def test_perfect_constant_and_random_networks(said, truth):
    world = World()
    parts = [world.images(400, seed) for seed in range(3)]
    random = np.random.default_rng(5)
    for images in parts:
        values = {
            "truth": images["fracture_visible"].to_numpy(dtype=float),
            "nothing": np.full(len(images), 0.6),
            "noise": random.random(len(images)),
        }[said]
        for name in images.filter(regex="^network_").columns:
            images[name] = values
    chosen = select_networks(parts[0], GROUPS, CONFIG)
    scorers = fit_scorers(parts[0], [one.choice for one in chosen], CONFIG)
    metrics = evaluate(scored(parts[1], scorers), parts[2], AGES, scorers, CONFIG)
    found = metrics.groups[0].models["bundle"].auroc
    assert holds(found, truth) or said != "noise"
    assert found.value == pytest.approx(truth, abs=0.1)
    if said == "truth":
        assert found.low > 0.96
        assert differing(metrics) == set()
    if said == "nothing":
        slope = metrics.calibration.groups[1].after.slope
        assert (slope.value, slope.reason) == (None, "all images have the same probability")
