"""The step that all parts of a layer share: the bound of halving its bits, and its gradient by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from corank.errors import ConfigError
from corank.training.shared_step import WIDTHS, SharedStepInputs, SharedStepWeight


def values(step: float, bits: int) -> Tensor:
    """From far below the range to far above it, ties and values close to them among them."""
    grid = torch.arange(-(2**bits) - 4, 2**bits + 4, dtype=torch.float32)[:, None] * step
    return torch.cat([(grid + step * off).flatten() for off in (0.0, 0.25, 0.499, 0.5, 0.501, 0.75)])[None]


def moved(before: Tensor, after: Tensor, step: float) -> tuple[int, int, int]:
    """In whole steps, which all values are: by how much the values move at most, the floor and the top."""
    levels = [(one.detach().double() / torch.tensor(step).double()).round().long() for one in (before, after)]
    apart = [levels[1] - levels[0], levels[1].min() - levels[0].min(), levels[1].max() - levels[0].max()]
    return int(apart[0].abs().max()), int(apart[1]), int(apart[2])


@pytest.mark.parametrize("bits", [one for one in WIDTHS if one > 2])
@pytest.mark.parametrize("step", [0.125, 0.0371])
def test_a_bit_less_at_twice_the_step_moves_no_value_by_more_than_a_step(bits: int, step: float) -> None:
    v = values(step, bits)
    rounders: list[SharedStepWeight | SharedStepInputs] = [SharedStepWeight(bits, torch.tensor(step))]
    rounders += [SharedStepInputs(bits, torch.tensor(step), signed) for signed in (False, True)]
    for rounder in rounders:
        before, after = rounder(v), rounder.inherited()(v)
        assert len(before.unique()) == 2**bits and len(after.unique()) == 2 ** (bits - 1)
        assert moved(before, after, step) == (1, 0, -1)  # the same floor, the top one step lower


def test_any_other_step_breaks_the_bound() -> None:
    weight, v = SharedStepWeight(4, torch.tensor(0.125)), values(0.125, 4)
    kept = SharedStepWeight(3, torch.tensor(0.125))
    assert moved(weight(v), kept(v), 0.125)[0] > 1


def test_what_was_learned_is_doubled_exactly() -> None:
    weight, inputs = SharedStepWeight(4, torch.tensor(0.1)), SharedStepInputs(4, torch.tensor(0.3), True)
    with torch.no_grad():
        weight.growth.fill_(0.37)
        inputs.growth.fill_(-1.1)
    assert torch.equal(weight.inherited().book().scale, 2 * weight.book().scale)
    assert torch.equal(inputs.inherited().now().step, 2 * inputs.now().step)
    assert inputs.inherited().now().signed


@pytest.mark.parametrize("bits", [2, 4])
def test_the_gradient_of_the_step_is_the_formula(bits: int) -> None:
    generator = torch.Generator().manual_seed(bits)
    v, upstream = (torch.randn(6, 10, generator=generator) for _ in range(2))
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    s = 0.3
    inside = (v / s >= low) & (v / s <= high)
    slope = torch.where(inside, (v / s).round().clamp(low, high) - v / s, (v / s).clamp(low, high))
    wanted = float((upstream * slope).sum()) / math.sqrt(v.numel() * high)

    weight = SharedStepWeight(bits, torch.tensor(s))
    leaf = v.clone().requires_grad_()
    weight(leaf).backward(upstream)
    assert leaf.grad is not None and torch.equal(leaf.grad, upstream * inside)
    # what trains is the logarithm: d s / d growth = s
    assert weight.growth.grad is not None and float(weight.growth.grad) / s == pytest.approx(wanted, rel=1e-4)

    inputs = SharedStepInputs(bits, torch.tensor(s), signed=True)
    inputs(v).backward(upstream)
    assert inputs.growth.grad is not None and float(inputs.growth.grad) / s == pytest.approx(wanted, rel=1e-4)


def test_parts_of_different_sizes_share_the_gradient() -> None:
    v = torch.randn(8, 9, generator=torch.Generator().manual_seed(0))
    parts, alone = (v, v[:2, :3]), []
    for part in parts:
        weight = SharedStepWeight(3, torch.tensor(0.4))
        weight(part).square().sum().backward()
        alone.append(weight.growth.grad)
    together = SharedStepWeight(3, torch.tensor(0.4))
    sum(together(part).square().sum() for part in parts).backward()  # pyright: ignore[reportAttributeAccessIssue]
    assert torch.allclose(together.growth.grad, alone[0] + alone[1])


def test_rounding_commutes_with_taking_channels() -> None:
    v, weight = torch.randn(8, 9), SharedStepWeight(3, torch.tensor(0.4))
    assert torch.equal(weight(v)[:3, :5], weight(v[:3, :5]))


def test_it_starts_as_the_authors_do() -> None:
    v = torch.randn(5, 7)
    assert float(SharedStepWeight.started(v, 4).get_buffer("scale")) == pytest.approx(
        2 * float(v.abs().mean()) / math.sqrt(7)
    )
    unsigned = SharedStepInputs.started(v.abs().mean(), 4)
    assert float(unsigned.get_buffer("step")) == pytest.approx(2 * float(v.abs().mean()) / math.sqrt(15))


def test_two_bits_are_the_fewest() -> None:
    with pytest.raises(ConfigError, match="fewest"):
        SharedStepWeight(2, torch.tensor(0.1)).inherited()
