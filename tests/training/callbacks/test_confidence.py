"""Confidence: what is not near a threshold does not move by a bit; what is near one moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from training.stepping import state_of, stepped

from corank.codecs import Binary, ICQuant, ScalarCodebook, StatsQ, Ternary, Uniform
from corank.errors import ConfigError
from corank.training.callbacks import CALLBACKS, Callback, Confidence
from corank.training.callbacks.confidence import is_undecided
from corank.training.described import described, read
from corank.training.recipe import Recipe
from corank.training.weights import LearnedStep, StraightThrough, WeightTraining

WAYS: dict[str, WeightTraining] = {
    "stats": StraightThrough(StatsQ(2)),
    "stats in groups": StraightThrough(StatsQ(3, group=8)),
    "binary": StraightThrough(Binary()),
    "ternary, refitted seldom": StraightThrough(Ternary()),
    "learned step": LearnedStep(Uniform(4)),
}


def undecided(state: Any, band: float) -> dict[str, torch.Tensor]:
    found = {}
    for name, layer, weight in state.weights():
        mask = is_undecided(weight.book(layer.matrix), layer.matrix.detach(), band)
        found[name] = layer.geometry.from_matrix(mask)
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_weights_outside_the_band_are_bit_identical_across_steps(way: str, kind: str) -> None:
    band = 0.05
    state = state_of(Recipe(weights=WAYS[way], callbacks=(Confidence(band, from_share=0.0),)))
    parameters = list(state.model.parameters())
    optimizer = (
        torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.3)
        if kind == "adamw"
        else torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.3)
    )
    moved = 0
    for _ in range(4):  # momentum has something to move after the first
        before = {name: layer.latent.detach().clone() for name, layer in state.layers.items()}
        masks = undecided(state, band)
        stepped(state, optimizer)
        assert not any(name.startswith("confidence") for name in state.kept)
        for name, layer in state.layers.items():
            mask = masks[name]
            assert torch.equal(layer.latent.detach()[~mask], before[name][~mask])
            assert mask.float().mean() < 0.5
            moved += int((layer.latent.detach()[mask] != before[name][mask]).sum())
    assert moved > 0
    assert state.model.get_parameter("head.bias").grad is not None


def test_gradients_outside_the_band_are_zero_before_the_step() -> None:
    state = state_of(Recipe(weights=StraightThrough(StatsQ(2))))
    callback = Confidence(0.05, from_share=0.0)
    masks = undecided(state, 0.05)
    state.model(torch.randn(4, 3, 8, 8)).square().sum().backward()
    callback.gradients_ready(state)
    for name, layer in state.layers.items():
        gradient = layer.latent.grad
        assert gradient is not None
        assert not gradient[~masks[name]].any() and gradient[masks[name]].any()


def test_it_waits_for_its_share_of_the_steps() -> None:
    recipe = Recipe(weights=StraightThrough(StatsQ(2)), iterations=10, callbacks=(Confidence(0.01, from_share=0.5),))
    state = state_of(recipe)
    optimizer = torch.optim.SGD(state.model.parameters(), lr=0.1)
    still = []
    for _ in range(10):
        before, masks = state.layers["head"].latent.detach().clone(), undecided(state, 0.01)
        stepped(state, optimizer)
        same = torch.equal(state.layers["head"].latent[~masks["head"]], before[~masks["head"]])
        still.append(same)
    assert still == [False] * 5 + [True] * 5


def test_the_band_is_a_share_of_the_distance_between_two_levels() -> None:
    book = StatsQ(2).fit(torch.tensor([[1.0, -1.0, 0.5, -0.5]]))  # levels +-0.375, +-1.125; thresholds 0, +-0.75
    weight = torch.tensor([[0.003, -0.004, 0.74, 0.76, 1.5, -1.5, 9.0, 0.375]])
    found = is_undecided(book, weight * 1.0, 0.005)
    assert found.tolist() == [[True, False, False, False, False, False, False, False]]  # 0.005 of 0.75 is 0.00375
    assert is_undecided(book, weight, 0.02).tolist() == [[True, True, True, True, False, False, False, False]]


def test_repeated_levels_meet_nowhere() -> None:
    levels = torch.tensor([-1.0, 0.0, 1.0, 1.0])
    book = ScalarCodebook(levels, torch.ones(1, 1), torch.zeros(1, 1), 4)
    assert is_undecided(book, torch.tensor([[1.0, 0.5, -0.5, 2.0]]), 0.1).tolist() == [[False, True, True, False]]


def test_the_scale_of_the_weights_does_not_matter() -> None:
    weight = torch.randn(8, 64)
    one = is_undecided(StatsQ(3).fit(weight), weight, 0.1)
    assert torch.equal(one, is_undecided(StatsQ(3).fit(4 * weight), 4 * weight, 0.1))
    assert 0.1 < one.float().mean() < 0.25  # seven of eight cells have two ends, a fifth of a width near each


def test_it_is_said_before_the_first_step_where_nothing_rounds_so() -> None:
    for way in (None, StraightThrough(ICQuant(3), refit=1)):
        edge: Any = {} if way else {"edge": None}
        state = state_of(Recipe(weights=way, callbacks=(Confidence(),), **edge))
        with pytest.raises(ConfigError, match=r"StraightThrough\(StatsQ\(2\)\)"):
            Confidence().start(state)


@pytest.mark.parametrize("asked", [{"band": 0.0}, {"band": 0.6}, {"from_share": 1.0}, {"from_share": -0.1}])
def test_what_is_no_setting_is_refused(asked: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"e\.g\."):
        Confidence(**asked)


def test_it_is_read_back() -> None:
    assert CALLBACKS["confidence"] is Confidence
    assert read(described(Confidence(0.01, 0.5)), Callback) == Confidence(0.01, 0.5)
