"""Norms that are followed while layers train: what first order says, what noise spreads, what curvature adds."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from training.stepping import state_of, stepped

from corank.codecs import StatsQ
from corank.errors import ConfigError
from corank.operators import operator_norm
from corank.training.callbacks import Callback, OperatorNorms
from corank.training.described import described, read
from corank.training.recipe import Recipe
from corank.training.state import TrainingState
from corank.training.weights import StraightThrough

SIZES = {"conv0": (3, 8, 8), "conv1": (8, 6, 6), "head": (384,)}


def float_state(every: int = 4) -> TrainingState:
    return state_of(Recipe(weights=None, edge=None, callbacks=(OperatorNorms(every, 400),)))


def looks(state: TrainingState, rate: float, steps: int) -> list[dict[str, float]]:
    optimizer = torch.optim.SGD(state.model.parameters(), lr=rate)
    found = []
    for _ in range(steps):
        stepped(state, optimizer)
        if "log_norms" in state.measured:
            found.append(dict(state.measured))
    return found


def log_norms(state: TrainingState) -> float:
    return sum(
        math.log(operator_norm(layer.geometry, layer.latent.detach(), SIZES[name], 400).value)
        for name, layer in state.layers.items()
    )


def test_it_follows_the_norms_and_its_terms_add_up() -> None:
    state = float_state()
    found = looks(state, 0.05, 12)
    assert len(found) == 3  # after steps 4, 8 and 12; the first one begins at step 1
    assert found[-1]["log_norms"] == pytest.approx(log_norms(state), abs=1e-4)
    for last, one in pairwise(found):
        assert one["log_norms"] - last["log_norms"] == pytest.approx(
            one["norm_gradient"] + one["norm_curvature"], abs=1e-5
        )
        for kind in ("gradient", "curvature"):
            named = [one[f"operator_norm_{kind}:{name}"] for name in SIZES]
            assert sum(named) == pytest.approx(one[f"norm_{kind}"], abs=1e-9)
    assert found[-1]["operator_norm:head"] == pytest.approx(
        float(torch.linalg.matrix_norm(state.layers["head"].matrix.detach(), 2)), rel=1e-4
    )


def moved(state: TrainingState, directions: dict[str, Tensor], factors: list[float]) -> dict[str, float]:
    """What is measured of steps that are so many times the directions."""
    state.measured, state.batch = {}, torch.randn(2, 3, 8, 8)
    for factor in factors:
        with torch.no_grad():
            for name, layer in state.layers.items():
                layer.latent.add_(directions[name], alpha=factor)
        state.recipe.callbacks[0].step_done(state)
        state.step += 1
    return dict(state.measured)


def directions_of(state: TrainingState) -> dict[str, Tensor]:
    return {name: torch.randn(layer.latent.shape) for name, layer in state.layers.items()}


def test_what_first_order_leaves_falls_with_the_square_of_the_step() -> None:
    left = []
    for step in (0.04, 0.02, 0.01):
        state = float_state(2)
        left.append(moved(state, directions_of(state), [0.0, step])["norm_curvature"])
    assert left[0] > 0
    for larger, smaller in pairwise(left):
        assert larger / smaller == pytest.approx(4, rel=0.3)


def test_steps_that_do_not_differ_have_no_noise() -> None:
    state = float_state()
    directions = directions_of(state)
    moved(state, directions, [0.001] * 4)
    steady = moved(state, directions, [0.001] * 4)
    rough = moved(state, directions, [0.004, -0.002, 0.004, -0.002])
    assert steady["norm_noise"] < 1e-4 * abs(steady["norm_gradient"]) + 1e-6
    assert rough["norm_noise"] > 0.5 * abs(rough["norm_gradient"])
    deviation = torch.tensor([4.0, -2.0, 4.0, -2.0]).std() * 2  # of a sum of four
    for name in SIZES:
        assert rough[f"operator_norm_noise:{name}"] == pytest.approx(
            float(deviation) * abs(rough[f"operator_norm_gradient:{name}"]) / 4, rel=0.02
        )


def test_low_bit_layers_are_followed_as_they_compute_and_a_run_that_goes_on_measures_the_same() -> None:
    ends = []
    for pause in (False, True):
        state = state_of(Recipe(weights=StraightThrough(StatsQ(2)), callbacks=(OperatorNorms(3),)))
        optimizer = torch.optim.SGD(state.model.parameters(), lr=0.05)
        stepped(state, optimizer, 4)
        if pause:
            state.kept = {name: one.clone() for name, one in state.kept.items()}
        stepped(state, optimizer, 2)
        ends.append(dict(state.measured))
    assert ends[0] == ends[1] and "operator_norm:conv1" in ends[0]
    matrix = state.layers["head"].computed().detach()
    assert ends[0]["operator_norm:head"] == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-3)


def test_settings() -> None:
    assert read(described(OperatorNorms(5)), Callback) == OperatorNorms(5)
    for wrong in ({"every": 1}, {"products": 0}):
        with pytest.raises(ConfigError, match="OperatorNorms"):
            OperatorNorms(**wrong)
