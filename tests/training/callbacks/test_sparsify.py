"""Weights that become zero: how many, when, which, and that they stay so; also in codes."""

from __future__ import annotations

import pytest
import torch
from training.stepping import state_of, stepped
from training.tiny_state import labelled_images, small_network

import corank
from corank.codecs import Binary, Uniform
from corank.errors import ConfigError
from corank.plan import LayerPlan
from corank.rounding.pruned import smallest
from corank.training.callbacks import Callback, Sparsify
from corank.training.described import described, read
from corank.training.recipe import Recipe
from corank.training.weights import LearnedStep, S3Latents, StraightThrough

INNER = "conv1"  # of the tiny network's three layers


def test_the_share_grows_by_its_cube() -> None:
    how = Sparsify(0.9, begin=0.2, until=0.7)
    assert [how.share(place) for place in (0.0, 0.2, 0.7, 1.0)] == pytest.approx([0, 0, 0.9, 0.9])
    assert how.share(0.45) == pytest.approx(0.9 * (1 - 0.5**3))


def test_what_is_zero_is_as_many_as_said_and_stays_zero() -> None:
    state = state_of(Recipe(weights=None, edge=None, callbacks=(Sparsify(0.8, until=0.5, every=2),), iterations=20))
    optimizer = torch.optim.AdamW(state.model.parameters(), lr=0.02)  # whose momentum moves weights without a gradient
    layer, before = state.layers[INNER], torch.zeros_like(state.layers[INNER].latent, dtype=torch.bool)
    edges = [state.layers[name] for name in ("conv0", "head")]
    for step in range(20):
        stepped(state, optimizer)
        zero = layer.latent.detach() == 0
        assert bool((zero | ~before).all()), "what was zero is not any more"
        if step % 2:
            share = Sparsify(0.8, until=0.5).share((step + 1) / 20)
            assert int(zero.sum()) == int(share * zero.numel())
            assert state.measured["sparsity"] == pytest.approx(int(zero.sum()) / zero.numel())
        before = zero
    assert int(before.sum()) == int(0.8 * before.numel())
    assert all(bool(edge.latent.all()) for edge in edges)


def test_the_smallest_go_first() -> None:
    state = state_of(
        Recipe(weights=None, edge=None, callbacks=(Sparsify(0.5, until=0.1, every=1, edges=True),), iterations=1)
    )
    matrices = {name: layer.matrix.detach().clone() for name, layer in state.layers.items()}
    for callback in state.recipe.callbacks:
        callback.step_done(state)
    for name, layer in state.layers.items():
        assert torch.equal(layer.matrix.detach(), matrices[name].masked_fill(smallest(matrices[name], 0.5), 0))


def test_codes_have_as_many_zeros_and_a_run_that_goes_on_the_same() -> None:
    way = LearnedStep(Uniform(4, range="mse"))
    found = []
    for pause in (False, True):
        state = state_of(Recipe(weights=way, edge=way, callbacks=(Sparsify(0.75, every=3),), iterations=12))
        optimizer = torch.optim.AdamW([one for one in state.model.parameters() if one.requires_grad], lr=0.01)
        stepped(state, optimizer, 7)
        if pause:
            state.kept = {name: one.clone() for name, one in state.kept.items()}
        stepped(state, optimizer, 5)
        layer = state.layers[INNER]
        decoded = layer.weight.coded(layer.matrix).decode()
        assert int((decoded == 0).sum()) >= int(0.75 * decoded.numel())
        found.append(decoded)
    assert torch.equal(*found)


def test_a_float_network_keeps_its_zeros_when_it_is_quantized() -> None:
    torch.manual_seed(0)
    data = labelled_images(32)
    recipe = Recipe(weights=None, edge=None, edge_inputs=None, start="float", callbacks=(Sparsify(0.75),), iterations=4)
    sparse = corank.train(small_network().eval(), data, recipe, batch_size=8)
    zeros = sparse[3].weight == 0
    assert int(zeros.sum()) == int(0.75 * zeros.numel())
    plan = corank.Plan({"3": LayerPlan(Uniform(4), sparsity=0.75)})
    small = corank.quantize(sparse, data, plan=plan)
    assert bool((small[3].weight[zeros] == 0).all())


@pytest.mark.parametrize("way", [StraightThrough(Binary()), LearnedStep(Uniform(2, half=True)), S3Latents()])
def test_weights_without_a_zero_are_refused(way: LearnedStep | StraightThrough | S3Latents) -> None:
    state = state_of(Recipe(weights=way, start="scratch" if isinstance(way, S3Latents) else "codes"))
    with pytest.raises(ConfigError, match=r"no code of zero.*Uniform"):
        Sparsify().start(state)


def test_averages_are_refused() -> None:
    with pytest.raises(ConfigError, match="average"):
        Sparsify().start(state_of(Recipe(weights=None, edge=None, average=0.9)))


def test_settings() -> None:
    assert read(described(Sparsify(0.5, 0.1, 0.6, 7, True)), Callback) == Sparsify(0.5, 0.1, 0.6, 7, True)
    for given in ({"sparsity": 1.0}, {"begin": 0.5, "until": 0.5}, {"every": 0}):
        with pytest.raises(ConfigError):
            Sparsify(**given)
