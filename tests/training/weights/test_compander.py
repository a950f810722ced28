"""A float weight as a function of what trains: folded equals unfolded, and the function is what it is said to be."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils import parametrize
from training.tiny_state import images, small_network, state_of, train

from corank.codecs import Uniform
from corank.errors import ConfigError
from corank.training.described import described, read
from corank.training.recipe import Recipe
from corank.training.weights import Compander, WeightStart, WeightTraining
from corank.training.weights.compander import companded, expanded


def test_derivatives() -> None:
    v = torch.randn(3, 4, dtype=torch.float64).requires_grad_()
    a, b = (torch.tensor(value, dtype=torch.float64).requires_grad_() for value in (1.3, 0.7))
    weighing = torch.randn(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(companded, (v, a, b))
    (companded(v, a, b) * weighing).sum().backward()
    with torch.no_grad():
        assert torch.allclose(v.grad, weighing * a * b / (b**2 + v**2))
        assert torch.allclose(a.grad, (weighing * torch.atan(v / b)).sum())
        assert torch.allclose(b.grad, (weighing * -a * v / (b**2 + v**2)).sum())


def test_bounded_odd_and_steepest_at_zero() -> None:
    a, b = torch.tensor(0.8), torch.tensor(0.2)
    v = torch.linspace(-1e4, 1e4, 1001)
    assert bool((companded(v, a, b).abs() < a * math.pi / 2).all())
    assert torch.equal(companded(-v, a, b), -companded(v, a, b))
    assert torch.allclose(companded(torch.tensor(1e-4), a, b) / 1e-4, a / b, rtol=1e-4)


def test_wide_it_is_the_identity() -> None:
    v = torch.randn(50, dtype=torch.float64)
    off = [
        float((companded(v, size, size) - v).abs().amax())
        for size in torch.tensor([10.0, 100.0, 1000.0], dtype=torch.float64)
    ]
    # v^3 / (3 b^2): a hundredth for ten times the width
    assert off[1] < off[0] / 90 and off[2] < off[1] / 90


def test_there_and_back() -> None:
    weight = torch.randn(4, 9, dtype=torch.float64)
    size = 2 * weight.abs().amax()
    assert torch.allclose(companded(expanded(weight, size, size), size, size), weight, atol=1e-14)


@pytest.mark.parametrize("width", [0.65, 2.0, 100.0])
def test_the_start_changes_no_weight(width: float) -> None:
    weight = torch.randn(4, 9)
    weight[0, 0] = 0
    running, latent = Compander(width).start(WeightStart(weight))
    assert torch.allclose(running(latent), weight, atol=1e-5)
    zeros = torch.zeros(2, 3)
    running, latent = Compander(width).start(WeightStart(zeros))
    assert torch.equal(running(latent), zeros)


def test_folded_equals_unfolded() -> None:
    model = small_network()
    state = state_of(model, Recipe(weights=Compander(), start="float"))
    losses = train(state, range(30), rate=0.05)
    assert losses[-1] < losses[0]
    batch, _ = images()
    model.eval()
    before = model(batch)
    for _, layer, weight in state.weights():
        assert bool((weight.get_parameter("growth") != 0).all())
        folded = layer.geometry.from_matrix(weight.folded(layer.matrix))
        parametrize.remove_parametrizations(layer.module, "weight", leave_parametrized=True)
        assert torch.equal(layer.module.get_parameter("weight"), folded)
    assert torch.equal(model(batch), before)


def test_saturated_weights_hardly_move() -> None:
    weight = torch.tensor([[0.01, 1.0]])
    running, latent = Compander(0.65).start(WeightStart(weight))
    latent.requires_grad_()
    running(latent).sum().backward()
    assert latent.grad is not None and float(latent.grad[0, 1]) < 0.01 * float(latent.grad[0, 0])


def test_it_has_no_codes() -> None:
    running, latent = Compander().start(WeightStart(torch.randn(2, 3)))
    assert Compander().stored is None and running.codec is None
    with pytest.raises(ConfigError, match="folded"):
        running.coded(latent)
    with pytest.raises(ConfigError, match="no codec"):
        Compander().with_codec(Uniform(4))


def test_settings() -> None:
    assert read(described(Compander(3.0)), WeightTraining) == Compander(3.0)
    bad: list[Any] = [0.5, -1, "2", float("nan")]
    for width in bad:
        with pytest.raises(ConfigError, match="width"):
            Compander(width)


def test_several_steps_keep_the_bound() -> None:
    running, latent = Compander().start(WeightStart(torch.randn(3, 5)))
    latent.requires_grad_()
    for _ in range(50):
        loss = F.mse_loss(running(latent), torch.full((3, 5), 50.0))
        gradients = torch.autograd.grad(loss, [latent, *running.parameters()])
        with torch.no_grad():
            for one, gradient in zip([latent, *running.parameters()], gradients, strict=True):
                one -= 0.001 * gradient
    height = running.get_buffer("size") * running.get_parameter("growth")[0].exp()
    assert bool((running(latent).abs() < height * math.pi / 2).all())
