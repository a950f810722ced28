"""True condition numbers: those of a singular value decomposition, written at their steps."""

from __future__ import annotations

import math

import pytest
import torch
from training.stepping import state_of, stepped

from corank.errors import ConfigError
from corank.training.callbacks import Callback, ConditionNumbers
from corank.training.callbacks.condition_numbers import condition_number
from corank.training.described import described, read
from corank.training.penalties.condition_number import stacked
from corank.training.recipe import Recipe


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5)])
def test_it_is_numpys(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert condition_number(weight[None]) == pytest.approx(float(torch.linalg.cond(weight)), rel=1e-9)


def test_of_blocks_it_is_the_block_diagonals() -> None:
    blocks = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert condition_number(blocks) == pytest.approx(float(torch.linalg.cond(torch.block_diag(*blocks))), rel=1e-9)


def test_zeros_and_lost_directions() -> None:
    weight = torch.randn(3, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    wide = torch.zeros(1, 5, 9, dtype=torch.float64)
    wide[0, :3, 2:8] = weight
    assert condition_number(wide) == pytest.approx(condition_number(weight[None]), rel=1e-9)
    weight[2] = weight[1]
    assert condition_number(weight[None]) == 1e16 or condition_number(weight[None]) > 1e14
    assert condition_number(torch.zeros(1, 3, 3)) == 1.0


def test_it_is_written_at_every_nth_step_and_at_the_last() -> None:
    state = state_of(Recipe(weights=None, edge=None, callbacks=(ConditionNumbers(every=3),), iterations=8))
    optimizer = torch.optim.SGD(state.model.parameters(), lr=0.01)
    seen = []
    for _ in range(8):
        stepped(state, optimizer)
        seen.append("condition" in state.measured)
    assert seen == [False, False, True, False, False, True, False, True]
    logs = [math.log10(condition_number(stacked(layer))) for layer in state.layers.values()]
    assert state.measured["condition"] == pytest.approx(sum(logs) / len(logs))
    assert state.measured["condition_max"] == pytest.approx(max(logs))


def test_settings() -> None:
    assert read(described(ConditionNumbers(every=5)), Callback) == ConditionNumbers(every=5)
    with pytest.raises(ConfigError, match="positive"):
        ConditionNumbers(every=0)
