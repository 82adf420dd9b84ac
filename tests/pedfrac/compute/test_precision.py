"""Networks compute in the numbers that are asked for, and are compiled where they can be."""

import logging

import pytest
import torch
import toy_training as toy
from torch import nn

from pedfrac.compute.precision import autocast, chosen
from pedfrac.config.runtime import RuntimeConfig
from pedfrac.errors import PedfracError
from pedfrac.training.learner import _compiles

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def kind_of_products(precision):
    with autocast(precision, CPU):
        return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


def test_products_are_of_the_kind_that_is_asked_for():
    assert kind_of_products("fp32") == kind_of_products("tf32") == torch.float32
    assert kind_of_products("bf16") == torch.bfloat16


def test_bf16_is_taken_by_itself_for_large_networks_where_the_processor_has_it(monkeypatch):
    small, large = nn.Linear(8, 8), nn.Linear(4096, 4096, device="meta")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    for there in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda there=there: there)
        assert chosen("auto", CPU, small) == chosen("fp32", CPU, large) == "fp32"
        assert chosen("auto", CPU, large) == ("bf16" if there else "fp32")


def test_a_compiler_is_asked_for_by_those_who_compile(monkeypatch, caplog):
    monkeypatch.setenv("CXX", "there-is-no-such-compiler")
    assert not _compiles(RuntimeConfig(compile="off"), GPU)
    assert not _compiles(RuntimeConfig(compile="auto"), CPU)
    with caplog.at_level(logging.WARNING):
        assert not _compiles(RuntimeConfig(compile="auto"), GPU)
    assert "not compiled" in caplog.text
    with pytest.raises(PedfracError, match="compile on: needs a C.. compiler"):
        _compiles(RuntimeConfig(compile="on"), CPU)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_ends_in_the_same_bits_each_time(tmp_path, precision):
    one, other = (
        toy.run(tmp_path / name, toy.config(epochs=2, precision=precision))
        for name in ("one", "other")
    )
    assert toy.same(one, other)
