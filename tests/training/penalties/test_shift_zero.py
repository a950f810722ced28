"""The regulariser of S3: its value, its gradient, and networks that have none of its latents."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from corank.errors import ConfigError
from corank.matrix import Geometry
from corank.training.penalties import ShiftZero
from corank.training.recipe import Recipe
from corank.training.state import TrainedLayer, TrainingState, parametrized
from corank.training.weights import S3Latents, StraightThrough, WeightStart, WeightTraining


def state_of(way: WeightTraining, layers: int = 2) -> TrainingState:
    model, found = nn.Sequential(*(nn.Linear(6, 6) for _ in range(layers))), {}
    for name, module in model.named_children():
        geometry = Geometry.of(module)
        weight, _ = way.start(WeightStart(module.weight.detach(), seed=int(name), fresh=isinstance(way, S3Latents)))
        found[name] = TrainedLayer(module, geometry, weight)
        parametrized(found[name])
    return TrainingState(Recipe(), model, None, found)


def test_value_and_gradient() -> None:
    state = state_of(S3Latents())
    latents = [weight.get_parameter("present") for _, _, weight in state.weights()]
    with torch.no_grad():
        latents[0][0, :3] = torch.tensor([0.0, -0.0, 1.0])
    ShiftZero().start(state)
    added = ShiftZero(0.01)(state, torch.zeros(()))
    expected = 0.01 * sum(max(-one, 0.0) for latent in latents for one in latent.flatten().tolist())
    assert float(added.detach()) == pytest.approx(expected, rel=1e-5)
    added.backward()
    for latent in latents:
        assert torch.equal(latent.grad, torch.where(latent < 0, -0.01, torch.zeros_like(latent)))
    assert ShiftZero().alpha == 1e-5 and not ShiftZero().differentiates_twice()


def test_a_network_without_such_latents_is_refused() -> None:
    with pytest.raises(ConfigError, match="S3Latents"):
        ShiftZero().start(state_of(StraightThrough()))
    with pytest.raises(ConfigError, match="from 0"):
        ShiftZero(-1.0)
