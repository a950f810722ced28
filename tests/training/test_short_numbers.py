"""Scales and biases of files of a rate: on their grids, once and for all, and the network little moved by it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from training.tiny_state import images, small_network, state_of

from corank.codecs import RateUniform
from corank.training.norms import NormAfter
from corank.training.penalties import Rate
from corank.training.recipe import Recipe
from corank.training.short_numbers import shorten_numbers
from corank.training.state import TrainingState
from corank.training.weights import LearnedStep
from corank.training.weights.learned_step import LearnedStepWeight

WAY = LearnedStep(RateUniform(5, 1.0, group=0), spread=0.3)


def trained(recipe: Recipe) -> tuple[TrainingState, list[NormAfter]]:
    torch.manual_seed(0)
    network = small_network().eval()
    norm = network[1]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.get_buffer("running_var").uniform_(0.5, 3.0)
    nn.init.normal_(norm.bias)
    state = state_of(network, recipe)
    for layer, book in Rate.priced(state):  # weights close to thresholds, as those that train mostly are
        near = layer.matrix.detach().div(book.scale).floor() + 0.5 + 0.002 * torch.randn(layer.matrix.shape)
        layer.rewrite(near * book.scale)
    return state, [NormAfter("1", network[1], network[0])]


def _plain(bias: Tensor | None) -> Tensor:
    return torch.zeros(1) if bias is None else bias.detach()


def stored(state: TrainingState, norms: list[NormAfter]) -> list[tuple[Tensor, Tensor]]:
    """Scales and biases of each layer as a file would hold them."""
    found = []
    for layer in state.layers.values():
        weight, bias = layer.weight, layer.module._parameters["bias"]
        assert isinstance(weight, LearnedStepWeight)
        scale = weight.book().scale.detach()
        own = [norm for norm in norms if norm.layer is layer.module]
        found.append((scale * own[0].gain[:, None], own[0].offset) if own else (scale, _plain(bias)))
    return found


def codes_of(state: TrainingState) -> list[Tensor]:
    return [book.nearest(layer.matrix.detach()) for layer, book in Rate.priced(state)]


def test_scales_have_five_digits_and_biases_are_few_steps() -> None:
    state, norms = trained(Recipe(WAY, penalties=(Rate(1.0),)))
    before, codes = stored(state, norms), codes_of(state)
    shorten_numbers(state, norms)
    assert all(torch.equal(one, other) for one, other in zip(codes_of(state), codes, strict=True))
    for (scale, bias), (old, old_bias) in zip(stored(state, norms), before, strict=True):
        digits = torch.frexp(scale.half().float()).mantissa * 2**5
        assert torch.equal(digits, digits.round())
        assert float((scale / old - 1).abs().max()) <= 2**-5 * 1.001
        step = 2.0 ** float((old_bias.square().mean().sqrt() / 16).log2().floor())
        assert float((bias / step - (bias / step).round()).abs().max()) < 1e-3
        assert float((bias - old_bias).abs().max()) <= step / 2 * 1.001


def test_what_is_rounded_stays_and_outputs_are_near() -> None:
    state, norms = trained(Recipe(WAY, penalties=(Rate(1.0),)))
    batch, _ = images()
    with torch.no_grad():
        before = state.model(batch)
        shorten_numbers(state, norms)
        once, kept = state.model(batch), copy.deepcopy(stored(state, norms))
        shorten_numbers(state, norms)
    assert float((once - before).norm() / before.norm()) < 0.1
    for (scale, bias), (old, old_bias) in zip(stored(state, norms), kept, strict=True):
        torch.testing.assert_close((scale, bias), (old, old_bias), rtol=1e-5, atol=1e-6)


def test_without_a_price_nothing_moves() -> None:
    state, norms = trained(Recipe(WAY))
    before = copy.deepcopy(stored(state, norms))
    shorten_numbers(state, norms)
    for one, other in zip(stored(state, norms), before, strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
