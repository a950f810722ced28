"""Pruned weights are zero under every rounder, and the others make up for them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from reference.gptq import gptq
from torch import Tensor, nn

import corank
from corank.codecs import Codec, Uniform
from corank.errors import ConfigError
from corank.plan import LayerPlan, Plan
from corank.rounding import ROUNDERS, Gptq, Nearest
from corank.rounding.pruned import Pruned, smallest
from corank.statistics import Gram

CODECS = [Uniform(4), Uniform(3, group=6), Uniform(2, symmetric=True), Uniform(4, group=-1, range="mse")]


def gram_of(columns: int) -> Gram:
    inputs = torch.randn(1, 300, columns) @ torch.randn(1, columns, columns)
    gram = Gram(1, columns)
    gram.update(inputs, 300)
    return gram


def pruned(codec: Codec, weight: Tensor, sparsity: float) -> Pruned:
    mask = smallest(weight, sparsity)
    return Pruned.of(codec.fit(weight.masked_fill(mask, 0.0)), mask)


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.97, 0.999])
def test_the_smallest_are_pruned_and_as_many_as_asked(sparsity: float) -> None:
    for weight in (torch.randn(13, 17), torch.full((4, 25), 0.5), torch.randint(-2, 3, (10, 10)).float()):
        mask = smallest(weight, sparsity)
        assert int(mask.sum()) == int(sparsity * weight.numel())
        if mask.any():
            assert weight[mask].abs().max() <= weight[~mask].abs().min()
        expected = sorted(range(weight.numel()), key=lambda place: (float(weight.abs().flatten()[place]), place))
        assert set(mask.flatten().nonzero().flatten().tolist()) == set(expected[: int(mask.sum())])


@pytest.mark.parametrize("rounder", sorted(set(ROUNDERS) - {"adaround"}))
@pytest.mark.parametrize("codec", CODECS)
def test_every_rounder_leaves_pruned_weights_zero(rounder: str, codec: Codec) -> None:
    weight, gram = torch.randn(7, 18), gram_of(18)
    book = pruned(codec, weight, 0.6)
    codes = ROUNDERS[rounder]()(weight.clone(), book, {Gram: gram})
    values = book.values(codes)
    assert bool((values[book.mask] == 0).all())
    assert bool((values[~book.mask] != 0).any())
    below, above = book.neighbours(weight)
    assert torch.equal(below[book.mask], above[book.mask])


def test_adaround_leaves_pruned_weights_zero() -> None:
    weight, gram = torch.randn(7, 18), gram_of(18)
    book = pruned(Uniform(3), weight, 0.6)
    codes = ROUNDERS["adaround"](20)(weight, book, {Gram: gram})  # pyright: ignore[reportCallIssue]
    assert bool((book.values(codes)[book.mask] == 0).all())


def test_gptq_with_a_mask_equals_the_textbook() -> None:
    weight, gram = torch.randn(5, 17), gram_of(17)
    book = pruned(Uniform(4), weight, 0.7)

    def rounded(column: Tensor, number: int) -> Tensor:
        part = book.columns(torch.tensor([number]))
        return part.values(part.nearest(column.float()[:, None]))[:, 0].double()

    given = book.values(Gptq(0.1)(weight, book, {Gram: gram}))
    assert torch.allclose(given, gptq(weight, gram.matrix[0], 0.1, rounded).float())


def test_the_others_make_up_for_what_is_pruned() -> None:
    weight, gram = torch.randn(20, 40), gram_of(40)
    book = pruned(Uniform(8), weight, 0.5)

    def lost(codes: Tensor) -> float:
        error = weight - book.values(codes)
        return float(((error @ gram.matrix[0]) * error).sum())

    by_gptq, by_nearest = (lost(rounder(weight, book, {Gram: gram})) for rounder in (Gptq(sweeps=3), Nearest()))
    assert by_gptq < 0.7 * by_nearest


@pytest.mark.parametrize("codec", [Uniform(2, half=True, range="mse"), Uniform(1, symmetric=True)])
def test_codecs_without_a_zero_are_refused(codec: Codec) -> None:
    weight = torch.randn(20, 30)
    with pytest.raises(ConfigError, match=r"have no zero among their values; .*Uniform\(bits=4\), sparsity=0.9"):
        Pruned.of(codec.fit(weight), smallest(weight, 0.5))


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(30, 60), nn.ReLU(), nn.Linear(60, 50), nn.ReLU(), nn.Linear(50, 4)).eval()


@pytest.mark.parametrize("sequential", [False, True])
def test_a_plan_prunes_its_layers(sequential: bool) -> None:
    model, inputs = network(), torch.randn(64, 30)
    layer = LayerPlan(Uniform(4, range="mse"), Gptq(), sequential=sequential, sparsity=0.8)
    plan = Plan({"0": replace(layer, sparsity=0.0), "2": layer, "4": replace(layer, rank=2, rounds=2, fit="output")})
    small = corank.quantize(model, inputs, plan=plan)
    for name, expected in (("0", 0.0), ("2", 0.8), ("4", 0.8)):
        weight = small.get_submodule(name).code().weight  # pyright: ignore
        zero = (weight.decode() == 0).float().mean()
        assert zero >= int(expected * weight.codes.numel()) / weight.codes.numel()
        assert zero < expected + 0.2
    assert small.corank_run.plan.layers["2"].sparsity == 0.8


def test_plans_without_pruning_say_nothing_of_it() -> None:
    layer = LayerPlan(Uniform(4))
    assert "sparsity" not in str(Plan({"a": layer}).to_json())
    for plan in (
        Plan({"a": layer, "b": replace(layer, sparsity=0.9)}),
        Plan({"a": replace(layer, sparsity=0.9), "b": replace(layer, sparsity=0.9), "c": layer}),
    ):
        assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("sparsity", [1.0, -0.1, float("nan"), "0.9", True, None])
def test_shares_that_cannot_be(sparsity: object) -> None:
    with pytest.raises(ConfigError, match=r"sparsity=.*e.g. 0.9"):
        LayerPlan(Uniform(4), sparsity=sparsity)  # pyright: ignore
