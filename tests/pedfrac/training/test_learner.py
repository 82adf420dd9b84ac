"""What makes a step fast or small leaves what is learned as it was, but for rounding."""

import functools
import shutil

import pytest
import torch
import toy_training as toy
from safetensors.torch import load_file

from pedfrac.config.runtime import RuntimeConfig
from pedfrac.config.training import ModelConfig
from pedfrac.errors import PedfracError
from pedfrac.models.classifier import build_model
from pedfrac.training.checkpoint import MODEL
from pedfrac.training.learner import largest_that_fits
from pedfrac.training.trainer import seed_weights, train

TINY = {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}


def learned(folder, imbalance="sampler", backbone="convnextv2_atto", options=TINY, **runtime):
    folder.mkdir(exist_ok=True)
    seed_weights(7)
    model = ModelConfig(backbone=backbone, size=toy.SIZE, weights="none", options=options)
    settings = toy.config(epochs=2, imbalance=imbalance)
    data, runtime = toy.data(), RuntimeConfig(**runtime)
    train(build_model(model, 2), data, settings, folder, device=toy.CPU, runtime=runtime)
    return load_file(folder / MODEL)


def assert_alike(one, other):
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("imbalance", ["sampler", "weighted"])
def test_micro_batches_learn_what_the_whole_batch_does(tmp_path, imbalance):
    whole = learned(tmp_path / "whole", imbalance)
    assert_alike(whole, learned(tmp_path / "micro", imbalance, micro_batch=5))


def test_gradient_checkpointing_changes_nothing(tmp_path):
    plain = learned(tmp_path / "plain")
    assert_alike(plain, learned(tmp_path / "few", gradient_checkpointing=True))


@pytest.mark.platform  # for its minutes
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs a compiler")
def test_a_compiled_network_learns_what_a_plain_one_does(tmp_path):
    plain = learned(tmp_path / "plain")
    assert_alike(plain, learned(tmp_path / "compiled", compile="on"))


def test_a_network_that_cannot_keep_few_activations_is_named(tmp_path):
    with pytest.raises(PedfracError, match="gradient_checkpointing: .* cannot"):
        learned(tmp_path, backbone="selecsls42", options={}, gradient_checkpointing=True)


@pytest.mark.parametrize(("room", "found"), [(40, 32), (31, 16), (9, 8), (1, 1)])
def test_a_batch_is_halved_until_it_fits(room, found):
    tried = []

    def attempt(count):
        tried.append(count)
        if count > room:
            raise torch.OutOfMemoryError

    assert largest_that_fits(32, attempt) == found == tried[-1]


def test_a_image_that_does_not_fit_is_an_error():
    def attempt(count):
        raise torch.OutOfMemoryError

    with pytest.raises(PedfracError, match="not even one image fits"):
        largest_that_fits(32, attempt)


def test_the_fused_optimiser_learns_what_the_plain_one_does(tmp_path, monkeypatch):
    fused = learned(tmp_path / "fused")
    plain = functools.partial(torch.optim.AdamW, foreach=False)
    monkeypatch.setattr(torch.optim, "AdamW", lambda *given, fused, **more: plain(*given, **more))
    assert_alike(fused, learned(tmp_path / "plain"))
