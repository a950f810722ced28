"""Where a layer is coded, by its size and its rounder; and what is moved stays what it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from corank.adapters import LowRank, code_factors
from corank.codecs import CODECS, Uniform
from corank.coded_weight import CodedWeight
from corank.coding.layer import code_and_decompose
from corank.coding.place import code_at, coding_device, directions_at, statistics_at
from corank.layers import CodedLayerState
from corank.plan import LayerPlan
from corank.rounding import AdaRound, Gptq
from corank.statistics import CrossMoments, Gram, OutputGradient

CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")
WALKS, AT_ONCE = LayerPlan(Uniform(3), Gptq()), LayerPlan(Uniform(3), AdaRound())


@pytest.mark.parametrize(
    ("plan", "shape", "moves"),
    [
        (WALKS, (1, 64, 576), True),
        (WALKS, (1, 512, 4608), False),
        (WALKS, (64, 1, 9), True),
        (AT_ONCE, (1, 16, 144), True),
        (AT_ONCE, (1, 64, 576), False),
        (replace(AT_ONCE, refits=2), (1, 64, 576), True),
    ],
)
def test_small_layers_are_coded_on_the_cpu(plan: LayerPlan, shape: tuple[int, int, int], moves: bool) -> None:
    assert coding_device(torch.empty(shape, device=ELSEWHERE), plan) == (CPU if moves else ELSEWHERE)
    assert coding_device(torch.empty(shape), plan) == CPU


def test_statistics_are_moved_once_until_they_change() -> None:
    rows = torch.randn(1, 50, 6) + torch.tensor([100.0, 0, 0, 0, 0, 0])
    gram, moments, gradient = Gram(1, 6), CrossMoments(1, 6), OutputGradient(1, 6)
    gram.update(rows, 1), moments.update_pair(rows, rows + 1, 1), gradient.update(rows, 1)
    statistics = {Gram: gram, CrossMoments: moments, OutputGradient: gradient}
    for kind, statistic in statistics_at(statistics, CPU).items():
        assert statistic is statistics[kind]
    there = statistics_at(statistics, ELSEWHERE)
    assert statistics_at(statistics, ELSEWHERE)[Gram] is there[Gram]
    seen, crossed = there[Gram], there[CrossMoments]
    assert isinstance(seen, Gram) and isinstance(crossed, CrossMoments)
    for tensor in (seen.matrix, seen.mean, seen.centred().matrix, crossed.cross, crossed.float_mean):
        assert tensor.device == ELSEWHERE
    assert (seen.count, seen.positions) == (gram.count, gram.positions)
    gram.update(rows, 1)
    assert statistics_at(statistics, ELSEWHERE)[Gram] is not seen


@pytest.mark.parametrize("name", sorted(set(CODECS) - {"levels"}))
def test_what_is_moved_has_the_same_values(name: str) -> None:
    weight = torch.randn(8, 40)
    codec = CODECS[name]()
    book = codec.fit(weight)
    codec = codec.with_measured_size(book)
    factors = code_factors(LowRank(torch.randn(1, 8, 2), torch.randn(1, 2, 40), torch.ones(2)), 8)
    code = CodedLayerState(codec, CodedWeight(book.nearest(weight), book), factors, 8)
    again = code_at(code, CPU)
    assert again.weight.codebook is not book and again.codec == codec
    assert torch.equal(again.compose(), code.compose())


def test_directions_leave_their_energies() -> None:
    given = LowRank(torch.randn(1, 8, 2), torch.randn(1, 2, 40), torch.ones(2))
    there = directions_at(given, ELSEWHERE)
    assert (there.left.device, there.right.device, there.energies.device) == (ELSEWHERE, ELSEWHERE, CPU)


def test_a_layer_coded_by_way_of_the_cpu_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same codes, with moments that were moved: taken to another CPU, as far as torch is concerned."""
    gram = Gram(1, 12)
    gram.update(torch.randn(1, 60, 12), 1)
    weight, bias = torch.randn(1, 5, 12), torch.randn(5)
    plan = LayerPlan(Uniform(3, half=True), Gptq(), rank=2, rounds=2, bias_correction=True)
    plain, directions = code_and_decompose(weight, bias, plan, {Gram: gram})
    monkeypatch.setattr("corank.coding.layer.coding_device", lambda *_: torch.device("cpu", 0))
    moved, others = code_and_decompose(weight, bias, plan, {Gram: gram})
    assert torch.equal(moved.code.compose(), plain.code.compose())
    assert plain.bias is not None and moved.bias is not None and torch.equal(moved.bias, plain.bias)
    assert moved.relative_output_error == plain.relative_output_error
    assert directions is not None and others is not None and torch.equal(directions.left, others.left)
