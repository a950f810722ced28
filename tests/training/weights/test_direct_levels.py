"""Levels and signs that train: what is computed with is what ships."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from training.tiny_state import images, small_network, state_of

from corank.codecs import KMeans, Uniform
from corank.errors import ConfigError
from corank.training.described import described, read
from corank.training.recipe import Recipe
from corank.training.weights import DirectLevels, TrainableWeight, WeightStart, WeightTraining

WAYS = [DirectLevels(bits, per) for bits in (1, 2, 4) for per in ("row", "layer")]


def started(how: WeightTraining, weight: Tensor) -> TrainableWeight:
    running, given = how.start(WeightStart(weight))
    assert torch.equal(given, weight)
    return running


@pytest.mark.parametrize("how", WAYS, ids=str)
def test_what_ships_is_what_was_computed_bit_for_bit(how: DirectLevels) -> None:
    weight = torch.randn(5, 40) * torch.rand(5, 1)
    weight[1] = 0
    weight[2] = 3e-5 * weight[2]  # sizes that fp16 makes equal, or nothing
    running = started(how, weight)
    for _ in range(20):
        computed = running(weight)
        with torch.no_grad():
            assert torch.equal(running(weight), computed)
        coded = running.coded(weight)
        assert torch.equal(coded.decode(), computed)
        assert all(len(row.unique()) <= 2**how.bits for row in computed.detach())
        if how.per == "row":  # every number of it is one of fp16, and so the file's values are the same
            kept = {name: tensor.float().flatten() for name, tensor in coded.codebook.tensors().items()}
            assert torch.equal(how.stored.codebook(kept, 5, 40).values(coded.codes), computed)
        computed.square().sum().backward()
        with torch.no_grad():
            for one in running.parameters():
                one -= 0.3 * torch.sign(one.grad) * torch.rand_like(one)
                one.grad = None


def test_gradients_are_those_of_the_sizes_and_signs() -> None:
    weight, weighing = torch.randn(3, 20), torch.randn(3, 20)
    running = started(DirectLevels(2, "row"), weight)
    (running(weight) * weighing).sum().backward()
    sizes, latent = running.get_buffer("sizes"), running.get_parameter("latent")
    signs = torch.where(latent >= 0, 1.0, -1.0)
    # d/dg of v exp(g) at g = 0
    assert torch.allclose(running.get_parameter("growth").grad, sizes * (signs * weighing).sum(2).T, rtol=1e-5)
    assert torch.allclose(latent.grad, sizes.T[:, :, None] * weighing, rtol=1e-5)


def test_no_float_weight_trains() -> None:
    state = state_of(small_network(), Recipe(weights=DirectLevels(2), start="float"))
    for _, layer, weight in state.weights():
        assert not layer.latent.requires_grad
        trained = {"growth", "latent", "row_growth"} if weight.codec == KMeans(2) else {"growth", "latent"}
        assert {name for name, _ in weight.named_parameters()} == trained
        assert weight.latents == ("latent",)


@pytest.mark.parametrize("per", ["row", "layer"])
def test_a_small_network_learns(per: str) -> None:
    state = state_of(small_network(), Recipe(weights=DirectLevels(2, per), start="float"))
    before = {name: weight.get_parameter("latent").detach() >= 0 for name, _, weight in state.weights()}
    optimizer, losses = torch.optim.Adam([one for one in state.model.parameters() if one.requires_grad], 0.02), []
    for step in range(60):
        torch.manual_seed(step)
        inputs, labels = images()
        loss = F.cross_entropy(state.model(inputs), labels)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    turned = [weight.get_parameter("latent").detach() >= 0 for _, _, weight in state.weights()]
    assert any(bool((old != new).any()) for old, new in zip(before.values(), turned, strict=True))


def test_settings() -> None:
    how = DirectLevels(3, "row")
    assert read(described(how), WeightTraining) == how
    assert how.with_codec(KMeans(2, "row", scaled=False)) == DirectLevels(2, "row")
    with pytest.raises(ConfigError, match="levels of its own"):
        how.with_codec(Uniform(2))
    with pytest.raises(ConfigError, match="starts from"):
        Recipe(weights=how, start="codes")


@pytest.mark.parametrize("fields", [{"bits": 0}, {"bits": 9}, {"bits": 2.0}, {"per": "network"}])
def test_bad_settings(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        DirectLevels(**fields)
