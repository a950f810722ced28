"""The blend of BCGD: the paper's step exactly, the core iteration at rho = 0, scales that it leaves alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from corank.codecs import Bcgd, Binary
from corank.errors import ConfigError
from corank.matrix import Geometry
from corank.training.callbacks import Blend, Callback
from corank.training.described import described, read
from corank.training.recipe import Recipe
from corank.training.state import TrainedLayer, TrainingState, parametrized
from corank.training.weights import StraightThrough, WeightStart

RATE = 0.05


def state_of(module: nn.Module, codec: Bcgd | Binary) -> TrainingState:
    geometry = Geometry.of(module)
    matrix = geometry.to_matrix(module.get_parameter("weight").detach()).flatten(0, 1).clone()
    running, _ = StraightThrough(codec).start(WeightStart(matrix))
    trained = TrainedLayer(module, geometry, running)
    parametrized(trained)
    return TrainingState(Recipe(), nn.Sequential(module), None, {"0": trained})


def gradients(state: TrainingState, inputs: Tensor) -> None:
    state.model.zero_grad()
    state.model(inputs).square().sum().backward()


def steps(blend: Blend | None, count: int, codec: Bcgd | Binary) -> Tensor:
    torch.manual_seed(3)
    state = state_of(nn.Linear(6, 4), codec)
    latent = state.layers["0"].latent
    optimizer = torch.optim.SGD([latent], RATE)
    for _ in range(count):
        gradients(state, torch.randn(5, 6))
        if blend is not None:
            blend.gradients_ready(state)
        optimizer.step()
    return latent.detach()


def by_hand(rho: float, count: int, codec: Bcgd | Binary) -> Tensor:
    torch.manual_seed(3)
    layer = nn.Linear(6, 4)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach()
    for _ in range(count):
        inputs = torch.randn(5, 6)
        book = codec.fit(weight)
        coded = book.values(book.nearest(weight))
        gradient = (2 * nn.functional.linear(inputs, coded, bias)).T @ inputs
        weight = (1 - rho) * weight + rho * coded - RATE * gradient
    return weight


@pytest.mark.parametrize("codec", [Binary(), Bcgd(2, group=0), Bcgd(4)])
@pytest.mark.parametrize("rho", [0.0, 1e-5, 0.1])
def test_a_step_is_the_papers(rho: float, codec: Bcgd | Binary) -> None:
    assert torch.allclose(steps(Blend(rho), 12, codec), by_hand(rho, 12, codec), rtol=1e-4, atol=1e-6)


def test_without_rho_it_is_the_core_iteration_bit_for_bit() -> None:
    assert torch.equal(steps(Blend(0.0), 12, Binary()), steps(None, 12, Binary()))
    assert not torch.equal(steps(Blend(0.1), 12, Binary()), steps(None, 12, Binary()))


@pytest.mark.parametrize("group", [0, -1])
def test_without_gradient_it_leaves_the_mean_magnitude_of_binary_weights(group: int) -> None:
    layer = nn.Linear(64, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-8, 9, (4, 64)) / 8)  # their mean magnitude is a number that fp16 holds
    state = state_of(layer, Binary(group=group))
    latent = state.layers["0"].latent
    mean = latent.detach().abs().mean(1 if group == 0 else None)
    spread = latent.detach().abs().std(1).mean()
    for _ in range(50):
        Blend(0.05).gradients_ready(state)
    assert torch.allclose(latent.abs().mean(1 if group == 0 else None), mean, rtol=1e-5)
    assert float(latent.detach().abs().std(1).mean()) < 0.1 * float(spread)


def test_zero_weights_are_no_third_level() -> None:
    layer = nn.Linear(32, 4)
    with torch.no_grad():
        layer.weight[:, ::3] = 0
    state = state_of(layer, Binary())
    latent = state.layers["0"].latent
    zero = latent.detach() == 0
    Blend(0.5).gradients_ready(state)
    assert bool((latent[zero] > 0).all())
    assert all(row.unique().numel() == 2 for row in layer.weight.detach())


@pytest.mark.parametrize("module", [nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(4, 6, 3)])
def test_weights_of_all_shapes_move(module: nn.Module) -> None:
    state = state_of(module, Binary())
    layer = state.layers["0"]
    before, coded = layer.matrix.detach().clone(), layer.computed().detach()
    Blend(0.25).gradients_ready(state)
    assert torch.allclose(layer.matrix, 0.75 * before + 0.25 * coded, atol=1e-6)


def test_rho_is_a_share() -> None:
    with pytest.raises(ConfigError, match=r"rho=1\.0"):
        Blend(1.0)


def test_json_both_ways() -> None:
    assert read(described(Blend(0.25)), Callback) == Blend(0.25)
