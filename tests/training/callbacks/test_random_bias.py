"""Biases drawn before the first step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training.tiny_state import small_network, state_of, train

from corank.codecs import Binary
from corank.errors import ConfigError
from corank.training.callbacks import Callback, RandomBias
from corank.training.callbacks.random_bias import active_share
from corank.training.described import described, read
from corank.training.recipe import Recipe
from corank.training.state import TrainingState
from corank.training.weights import StraightThrough


def started(*callbacks: Callback, seed: int = 0) -> TrainingState:
    torch.manual_seed(7)
    recipe = Recipe(weights=StraightThrough(Binary()), callbacks=callbacks, start="scratch", iterations=10)
    return state_of(small_network(), recipe, seed)


def bias_of(state: TrainingState) -> Tensor:
    return state.model.get_parameter("1.bias").detach().clone()


def test_the_share_that_passes_a_gradient() -> None:
    assert abs(active_share(0.0) - 0.6827) < 5e-5
    drawn = torch.randn(1 << 20, dtype=torch.float64)
    for bias in (0.0, 0.5, 1.0, -2.0):
        inputs = drawn + bias
        assert abs(float((inputs.abs() <= 1).double().mean()) - active_share(bias)) < 2e-3
    assert active_share(1.0) == pytest.approx(active_share(-1.0))


def test_no_width_is_the_run_without_it_bit_for_bit() -> None:
    plain, none = started(), started(RandomBias(0.0))
    losses = train(plain, range(10))
    assert train(none, range(10)) == losses and not none.kept
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, none.model.state_dict()[name])


def test_only_the_norms_biases_are_drawn_and_no_one_elses_draws_move() -> None:
    before, state = started(), started(RandomBias(0.5))
    drawn = torch.get_rng_state()
    RandomBias(0.5).start(state)
    assert torch.equal(torch.get_rng_state(), drawn)
    for name, tensor in before.model.state_dict().items():
        assert torch.equal(tensor, state.model.state_dict()[name]) is (name != "1.bias")
    assert bool((bias_of(state).abs() <= 0.5).all()) and len(bias_of(state).unique()) == 6


def test_draws_are_uniform_and_hang_on_the_seed() -> None:
    wide = nn.Sequential(nn.Conv2d(3, 20000, 1), nn.BatchNorm2d(20000))
    state = state_of(wide, Recipe(weights=None, start="float"))
    RandomBias(2.0).start(state)
    bias = wide.get_parameter("1.bias").detach()
    assert abs(float(bias.mean())) < 0.05 and abs(float(bias.var()) - 4 / 3) < 0.05
    assert not wide.get_parameter("1.weight").detach().ne(1).any()
    found = []
    for seed in (1, 1, 2):
        one = started(seed=seed)
        RandomBias().start(one)
        found.append(bias_of(one))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_a_run_that_goes_on_draws_nothing_again() -> None:
    state = started()
    RandomBias().start(state)
    bias = bias_of(state)
    RandomBias().start(state)
    assert torch.equal(bias_of(state), bias)


def test_without_norms_the_layers_own_but_the_last() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3, bias=False), nn.Linear(3, 2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    RandomBias().start(state_of(model, Recipe(weights=None, start="float")))
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed == ["0.bias"]


def test_settings() -> None:
    assert read(described(RandomBias(0.5)), Callback) == RandomBias(0.5)
    bad: list[Any] = [-1.0, float("nan"), "1"]
    for width in bad:
        with pytest.raises(ConfigError, match="width"):
            RandomBias(width)
