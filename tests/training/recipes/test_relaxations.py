"""The recipes that relax or blend, on a tiny network: they end in codes, and those are better than the start's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from corank.layers import fit_inputs
from corank.matrix import Geometry
from corank.training.inputs import InputStart
from corank.training.recipe import Recipe
from corank.training.recipes.bcgd import bcgd
from corank.training.recipes.binary_relax import binary_relax
from corank.training.recipes.parq import parq
from corank.training.recipes.roq import roq
from corank.training.state import TrainedLayer, TrainingState, parametrized
from corank.training.weights import WeightStart

STEPS = 150


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 4))


def begun(recipe: Recipe, model: nn.Sequential, given: Tensor) -> TrainingState:
    """The middle layer as the recipe has it, from the float weight."""
    layer = model[2]
    assert isinstance(layer, nn.Linear) and recipe.weights is not None
    running, latent = recipe.weights.start(WeightStart(layer.weight.detach().clone()))
    trained = TrainedLayer(layer, Geometry.of(layer), running)
    if recipe.inputs is not None:
        with torch.no_grad():
            fed = model[:2](given)
        quantizer = fit_inputs(fed.flatten(), 0.0, float(fed.max()), recipe.inputs.bits)
        trained.inputs = recipe.inputs.start(InputStart(quantizer, float(fed.mean())))
        layer.register_forward_pre_hook(lambda _, args: (running_inputs(args[0]),))
        running_inputs = trained.inputs
    parametrized(trained)
    trained.rewrite(latent)
    return TrainingState(recipe.replaced(iterations=STEPS), model, None, {"2": trained})


@torch.no_grad()
def error(model: nn.Module, given: Tensor, wanted: Tensor) -> float:
    return float((model(given) - wanted).square().mean())


def trained(recipe: Recipe, given: Tensor) -> tuple[TrainingState, float, float]:
    """The state after all steps, and the squared error of the quantized network before and after them."""
    model, teacher = network(), network()
    with torch.no_grad():
        wanted = teacher(given)
    state = begun(recipe, model, given)
    inputs = state.layers["2"].inputs
    parameters = [*model.parameters(), *([] if inputs is None else inputs.parameters())]
    optimizer = torch.optim.Adam(parameters, 3e-3)
    model.eval()
    before = error(model, given, wanted)
    for callback in recipe.callbacks:
        callback.start(state)
    for state.step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - state.place)
        optimizer.zero_grad()
        (model(given) - wanted).square().mean().backward()
        for callback in recipe.callbacks:
            callback.gradients_ready(state)
        optimizer.step()
        with torch.no_grad():
            for _, layer, weight in state.weights():
                weight.after_step(layer.matrix, state.step)
            for callback in recipe.callbacks:
                callback.step_done(state)
    for callback in recipe.callbacks:
        callback.finished(state)
    model.eval()
    return state, before, error(model, given, wanted)


@pytest.mark.parametrize(
    "recipe",
    [binary_relax(1, None), binary_relax(2, 4), bcgd(1, 4), bcgd(4, 4), roq(1, None), parq(1, None), parq(2, 4)],
    ids=["binary-relax-1bit", "binary-relax-w2a4", "bcgd-w1a4", "bcgd-w4a4", "roq-1bit", "parq-1bit", "parq-w2a4"],
)
def test_the_codes_it_ends_in_are_better_than_those_of_the_start(recipe: Recipe) -> None:
    state, before, after = trained(recipe, torch.randn(256, 8))
    assert after < 0.7 * before
    layer = state.layers["2"]
    assert layer.weight is not None
    coded = layer.weight.coded(layer.matrix)
    assert torch.equal(coded.decode(), layer.computed())
    assert all(row.unique().numel() <= 2**coded.codebook.code_bits for row in coded.decode())
