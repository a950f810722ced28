"""Losses told from one another by what they do."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.errors import ConfigError
from corank.identity import function_identity
from corank.losses import output_distance, token_distance

WEIGHT = 2.0


def scaled(output: Tensor, reference: Tensor) -> Tensor:
    return WEIGHT * (output - reference).square().mean()


def calls_another(output: Tensor, reference: Tensor) -> Tensor:
    return scaled(output, reference).sqrt()


def closing_over(value: Any) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda output, reference: value * (output - reference).square().mean()


def by_default(value: Any) -> Callable[..., Tensor]:
    def loss(output: Tensor, reference: Tensor, factor: Any = value, *, power: Any = value) -> Tensor:
        return factor * (output - reference).abs().pow(power).mean()

    return loss


class Weighted(nn.Module):
    def __init__(self, weight: Tensor, kind: str = "mean") -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.kind = kind

    def forward(self, output: Tensor, reference: Tensor) -> Tensor:
        return (self.weight * (output - reference)).square().mean()

    def loss(self, output: Tensor, reference: Tensor) -> Tensor:
        return self(output, reference)


class Plain:
    def __init__(self, weight: Any) -> None:
        self.weight = weight

    def __call__(self, output: Tensor, reference: Tensor) -> Tensor:
        return self.weight * (output - reference).square().mean()


def two_lambdas() -> list[Callable[..., Tensor]]:
    return [lambda a, b: (a - b).square().mean(), lambda a, b: (a - b).abs().mean()]


OTHERS = [
    *two_lambdas(),
    lambda a, b: (a + b).abs().mean(),
    lambda a, b: (a + b).abs().mean() * 2,
    lambda a, b: F.mse_loss(a, b),
    lambda a, b: F.l1_loss(a, b),
    closing_over(1.0), closing_over(2.0), closing_over(torch.ones(3)), closing_over(torch.zeros(3)),
    closing_over((1, [2, {"a": 3}])), closing_over((1, [2, {"a": 4}])),
    closing_over({1, 2, 3}), closing_over({1, 2, 4}),
    closing_over(np.arange(3)), closing_over(np.arange(4)),
    closing_over(F.mse_loss), closing_over(F.l1_loss),
    closing_over(torch.float32), closing_over(torch.float16),
    by_default(1.0), by_default(2.0),
    functools.partial(scaled, 1), functools.partial(scaled, 2), functools.partial(scaled, output=2),
    Weighted(torch.ones(2)), Weighted(torch.zeros(2)), Weighted(torch.ones(2), "sum"),
    Weighted(torch.ones(2)).loss, Weighted(torch.zeros(2)).loss,
    Plain(1), Plain(2), Plain(closing_over(1)), Plain(closing_over(2)),
    nn.MSELoss(), nn.MSELoss(reduction="sum"), nn.CrossEntropyLoss(label_smoothing=0.1), nn.CrossEntropyLoss(),
    F.mse_loss, F.l1_loss, torch.dist, math.dist, torch.ones(2).dot, torch.zeros(2).dot,
    output_distance, token_distance, scaled, calls_another,
]  # fmt: skip


def test_all_are_told_from_one_another_and_known_again() -> None:
    found = [function_identity(loss) for loss in OTHERS]
    assert len(set(found)) == len(found)
    assert [function_identity(loss) for loss in OTHERS] == found


def test_those_made_alike_are_alike() -> None:
    for make in (Plain, closing_over, by_default):
        assert function_identity(make(torch.ones(3))) == function_identity(make(torch.ones(3)))
    assert function_identity(two_lambdas()[0]) == function_identity(two_lambdas()[0])
    assert function_identity(Weighted(torch.ones(2))) == function_identity(Weighted(torch.ones(2)))


def test_a_global_that_a_loss_names_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = function_identity(scaled), function_identity(calls_another), function_identity(two_lambdas()[0])
    monkeypatch.setitem(globals(), "WEIGHT", 3.0)
    after = function_identity(scaled), function_identity(calls_another), function_identity(two_lambdas()[0])
    assert before[0] != after[0] and before[1] != after[1] and before[2] == after[2]


def test_where_it_is_written_does_not_count() -> None:
    spaces: list[dict[str, Any]] = [{}, {}]
    exec("def loss(a, b):\n    return (a - b).mean()\n", spaces[0])
    exec("\n\n\ndef loss(a, b):\n\n    return (a - b).mean()\n", spaces[1])
    for space in spaces:
        space["loss"].__module__ = "__main__"
    assert function_identity(spaces[0]["loss"]) == function_identity(spaces[1]["loss"])


def test_functions_may_hold_themselves() -> None:
    def loss(output: Tensor, reference: Tensor, depth: int = 1) -> Tensor:
        return loss(output, reference, depth - 1) if depth else (output - reference).mean()

    assert function_identity(loss) == function_identity(loss)


class Silent:
    """Says nothing of itself, and has no fields to look at."""

    __slots__ = ("hidden",)


class Spoken(Silent):
    __slots__ = ()

    def __repr__(self) -> str:
        return "Spoken(3)"


@pytest.mark.parametrize("held", [threading.Lock(), Silent(), iter([1]), torch.Generator()])
def test_what_tells_nothing_of_itself_is_refused(held: object) -> None:
    with pytest.raises(ConfigError, match=r"value of closing_over.*__repr__"):
        function_identity(closing_over(held))
    assert function_identity(closing_over(Spoken()))
