"""Heads of the age classifier: what they say by themselves, and that each one learns."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import toy_training as toy
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file

from pedfrac.age_groups import AgeGroups
from pedfrac.config.training import AgeConfig, AugmentConfig, ModelConfig
from pedfrac.errors import PedfracError
from pedfrac.models.classifier import build_model
from pedfrac.models.heads import FINEST, Classes, OrdinalAge, RegressedAge, make_head
from pedfrac.training.checkpoint import CHECKPOINT, MODEL, load_weights
from pedfrac.training.dataset import ImageSet, TrainingData
from pedfrac.training.inference import predict_output
from pedfrac.training.trainer import seed_weights, train_on

AGES = AgeGroups((0, 1.5, 5, 10, 15, 19))
SIZE = 48
SWIN = ModelConfig(
    backbone="swin_tiny_patch4_window7_224",
    size=SIZE,
    weights="none",
    options={
        "embed_dim": 8,
        "depths": [1, 1],
        "num_heads": [1, 2],
        "window_size": 3,
        "drop_path_rate": 0,  # else each process would draw its own
    },
)
CPU = torch.device("cpu")
KINDS = ["classes", "ordinal", "regression"]
OLDER = ["ordinal", "regression"]


def images(name: str, count: int, first_patient: int, seed: int) -> ImageSet:
    """Noise with a bright square that grows with age, as bones do."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, SIZE, SIZE), dtype=np.uint8)
    years = rng.uniform(0.2, 19, count).round(1)
    for image, age in zip(images, years, strict=True):
        side = 4 + round(2 * age)
        top, left = rng.integers(1, SIZE - side, 2)
        image[top : top + side, left : left + side] += 150
    return ImageSet(
        name=name,
        images=images,
        rows=np.arange(count),
        labels=AGES.assign(years),
        filestems=[f"{name}{k}" for k in range(count)],
        patients=first_patient + np.arange(count) // 2,
        years=years,
    )


def data() -> TrainingData:
    return TrainingData(
        "age", AGES.names, images("training", 160, 0, 1), images("validation", 61, 900, 2)
    )


def network(kind):
    return build_model(SWIN, make_head(kind, AGES))


def run(folder: Path, kind, count=1, on_epoch=lambda epoch: None, **changes):
    """Train on so many processes; return weights and history."""
    folder.mkdir(exist_ok=True)
    settings = toy.config(**{"monitor": "f1", "epochs": 3} | changes)
    seed_weights(settings.seed)
    build = partial(network, kind)
    train_on([CPU] * count, build, data(), settings, folder, on_epoch=on_epoch)
    return load_file(folder / MODEL), json.loads((folder / "history.json").read_text())


def answers(kind, numbers, ages=AGES):
    """Return probabilities and years of a head as made, from raw numbers in rising order."""
    head = make_head(kind, ages)
    raw = torch.tensor(sorted(numbers))[:, None]
    with torch.inference_mode():
        output = head(raw)
        return head.probabilities(output).double().numpy(), head.years(output)


bounds = st.lists(st.integers(0, 40), min_size=3, max_size=6, unique=True).map(
    lambda halves: AgeGroups(tuple(sorted(half / 2 for half in halves)))
)
numbers = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=9)


@pytest.mark.parametrize("kind", OLDER)
@given(numbers=numbers, ages=bounds)
def test_probabilities_add_up_and_rise_with_age(kind, numbers, ages):
    probabilities, years = answers(kind, numbers, ages)
    assert probabilities.shape == (len(numbers), len(ages))
    assert probabilities.min() >= -1e-6
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    older = probabilities[:, ::-1].cumsum(axis=1)
    assert (np.diff(older, axis=0) >= -1e-5).all()
    assert (torch.diff(years) >= -1e-4).all()
    assert ages.bounds[0] - 1e-3 <= years.min() and years.max() <= ages.bounds[-1] + 1e-3


@pytest.mark.parametrize("kind", OLDER)
def test_untrained_a_group_is_likeliest_for_its_own_middle(kind):
    ages = AgeGroups((0, 5, 10, 15, 19))
    head = make_head(kind, ages)
    head.fit(torch.tensor([[1.0]]), torch.tensor([2.0]))  # a spread of one year
    middles = torch.tensor([2.5, 7.5, 12.5, 17])
    output = head(((middles - head.middle) / head.reach)[:, None])
    assert head.probabilities(output).argmax(dim=1).tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(head.years(output).detach(), middles, atol=0.5, rtol=0)


def test_ordinal_targets_cut_as_the_groups_do():
    head = OrdinalAge(AGES)
    assert head.knots.tolist() == [0, 1, 1.5, *range(2, 20)]
    certain = torch.full((1, 19), 50.0)
    for age in (1.4, 1.5, 5.0, 19.0):
        signs = torch.where(torch.tensor(age) >= head.knots[1:-1], 1.0, -1.0)
        assert head.losses(certain * signs, torch.tensor([age])).item() < 1e-6
        found = head.probabilities(certain * signs).argmax(dim=1)
        assert found.item() == AGES.assign([age])[0]


def test_a_spread_fitted_on_validation_calibrates_the_integrals():
    draw = np.random.default_rng(5)
    head, told = RegressedAge(AGES), draw.uniform(0, 19, 20_000)
    truth = told + draw.laplace(0, 1.7, len(told))
    output = torch.tensor(told, dtype=torch.float32)[:, None]
    head.fit(output[:2000], torch.tensor(truth[:2000], dtype=torch.float32))
    assert head.spread.item() == pytest.approx(1.7, rel=0.1)
    probabilities = head.probabilities(output).numpy()
    groups = AGES.assign(np.clip(truth, 0, 19))
    for group in range(len(AGES)):
        chance, hit = probabilities[:, group], groups == group
        for some in np.array_split(chance.argsort(), 5):
            assert hit[some].mean() == pytest.approx(chance[some].mean(), abs=0.03)


def test_faultless_validation_images_do_not_make_it_certain():
    head = RegressedAge(AGES)
    head.fit(torch.tensor([[3.0]]), torch.tensor([3.0]))
    assert head.spread.item() == pytest.approx(FINEST)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("imbalance", ["sampler", "weighted"])
def test_a_tiny_swin_learns_ages(tmp_path, kind, imbalance):
    history = run(tmp_path / "a", kind, imbalance=imbalance, epochs=16)[1]
    summary = json.loads((tmp_path / "a/summary.json").read_text())
    best = history[summary["best_epoch"] - 1]["validation"]
    assert best["accuracy"] > 0.6
    if kind == "classes":
        assert "age_error" not in best
        return
    assert best["age_error"] < 2.5  # always saying the middle: about 4.7
    table = pd.read_csv(tmp_path / "a/validation.csv")
    assert (table["age_seen"] - table["age"]).abs().mean() == pytest.approx(
        best["age_error"], abs=1e-4
    )
    np.testing.assert_allclose(table.filter(regex=r"^p_\d+$").sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("kind", OLDER)
def test_going_on_gives_the_weights_of_an_undisturbed_run(tmp_path, kind):
    whole = run(tmp_path / "whole", kind)[0]
    with pytest.raises(toy.Stop):
        run(tmp_path / "part", kind, on_epoch=toy.stop_after(2))
    assert (tmp_path / "part" / CHECKPOINT).exists()
    assert toy.same(whole, run(tmp_path / "part", kind)[0])
    for name in ("history.json", "summary.json", "validation.csv"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("kind", OLDER)
def test_two_processes_learn_what_one_does(tmp_path, kind, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    still = AugmentConfig(**dict.fromkeys(AugmentConfig.model_fields, 0))
    # 160 images in steps of 53: unequal shares, and a last step of one image that joins the others
    settings = {"augment": still, "epochs": 2, "batch_size": 53, "imbalance": "weighted"}
    (one, history), (two, other) = (
        run(tmp_path / str(n), kind, n, learning_rate=1e-3, **settings) for n in (1, 2)
    )
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=2e-4, rtol=1e-3, msg=name)
    for a, b in zip(history, other, strict=True):
        for part in ("training", "validation"):
            assert a[part]["age_error"] == pytest.approx(b[part]["age_error"], abs=1e-3)
            assert a[part]["loss"] == pytest.approx(b[part]["loss"], abs=1e-3)


def test_the_spread_travels_with_the_weights(tmp_path):
    weights = run(tmp_path / "a", "regression", epochs=1)[0]
    model = network("regression")
    load_weights(model, tmp_path / "a" / MODEL)
    assert model.head.spread == weights["head.spread"] != RegressedAge(AGES).spread
    validation = data().validation
    output = predict_output(model, validation, device=CPU)
    error = (output[:, 0].numpy() - validation.years).__abs__().mean()
    assert error == pytest.approx(model.head.spread.item(), rel=1e-4)


def test_plain_classes_have_no_weights_of_their_own():
    assert not Classes(3).state_dict()
    assert Classes(3).years(torch.zeros(2, 3)) is None


@pytest.mark.parametrize("kind", OLDER)
def test_images_without_ages_are_refused(tmp_path, kind):
    toys = toy.data()
    with pytest.raises(PedfracError, match="training images have no ages"):
        train_on([CPU], partial(network, kind), toys, toy.config(), tmp_path)


@pytest.mark.parametrize("kind", OLDER)
def test_unlearnable_numbers_end_in_an_error(tmp_path, kind):
    with pytest.raises(PedfracError, match="age: the network's output is no number any more"):
        run(tmp_path / "a", kind, learning_rate=1e30, clip_norm=None, epochs=6)


@pytest.mark.parametrize("change", [{"imbalance": "focal"}, {"label_smoothing": 0.1}])
def test_a_loss_of_classes_is_refused_beside_another_head(change):
    AgeConfig.model_validate({"training": change})
    with pytest.raises(ValidationError, match=f"{next(iter(change))}.*of head classes"):
        AgeConfig.model_validate({"training": change, "head": "ordinal"})
