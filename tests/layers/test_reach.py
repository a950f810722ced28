"""Layers that only some samples reach are found, in the order they run; those that none reaches are said."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from corank.layers import prepare


class Experts(nn.Module):
    """Each sample goes to the expert that its first number names, and all through the head."""

    def __init__(self, calls_empty: bool) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(4, 4), nn.Linear(4, 2)
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
        self.unused = nn.Linear(4, 4)
        self.calls_empty = calls_empty

    def forward(self, x: Tensor) -> Tensor:
        hidden, found = self.stem(x), torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows = (x[:, 0].round() == number).nonzero()[:, 0]
            if self.calls_empty or len(rows):
                found = found.index_add(0, rows, expert(hidden[rows]))
        return self.head(found)


def to(*experts: int) -> Tensor:
    found = torch.zeros(len(experts), 4)
    found[:, 0] = torch.tensor(experts, dtype=torch.float32)
    return found


def prepared(model: nn.Module, *batches: Tensor) -> Any:
    runs = [lambda one, batch=batch: one(batch) for batch in batches]
    return prepare(model, runs[0], further=runs[1:])


def test_experts_are_targets_whichever_sample_comes_first() -> None:
    for calls_empty in (True, False):
        found = prepared(Experts(calls_empty), to(1, 1), to(2, 1), to(0, 2))
        assert list(found.targets) == ["stem", "experts.0", "experts.1", "experts.2", "experts.3", "head"] or (
            not calls_empty and set(found.targets) == {"stem", *(f"experts.{n}" for n in range(4)), "head"}
        )
        assert found.unseen == {"experts.3"}
        assert next(iter(found.targets)) == "stem" and list(found.targets)[-1] == "head"
        assert found.edges == {"stem", "head"}
        assert list(found.skipped) == ["unused"] and "never called" in found.skipped["unused"]


def test_no_further_sample_is_run_where_all_layers_are_reached() -> None:
    ran = []

    def further(model: nn.Module) -> None:
        ran.append(model)

    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    assert not prepare(model, lambda one: one(torch.randn(2, 4)), further=[further]).unseen
    attention = nn.MultiheadAttention(4, 2, batch_first=True)  # its parent reads the weight of a layer that never runs

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.out = attention, nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.attention(x, x, x)[0])

    found = prepare(Attends(), lambda one: one(torch.randn(2, 3, 4)), further=[further])
    assert not ran and list(found.targets) == ["out"]
    prepare(Experts(True), lambda one: one(to(0, 1, 2, 3)), further=[further, further])
    assert len(ran) == 2  # `unused` is looked for in vain


def test_the_search_ends_with_the_last_layer_reached() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(x) if float(x[0, 0]) > 0 else self.one(x)

    ran = []

    def further(model: nn.Module) -> None:
        ran.append(model)
        model(torch.ones(2, 4))

    found = prepare(Two(), lambda one: one(-torch.ones(2, 4)), further=[further] * 5)
    assert len(ran) == 1 and not found.unseen and list(found.targets) == ["two", "one"]
