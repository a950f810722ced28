"""A tiny network that trains by hand: `from training.stepping import state_of, stepped`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.matrix import Geometry
from corank.training.callbacks import Callback
from corank.training.recipe import Recipe
from corank.training.state import TrainedLayer, TrainingState, parametrized
from corank.training.weights import WeightStart

__all__ = ["state_of", "stepped"]


def state_of(recipe: Recipe, norms: bool = False, seed: int = 0) -> TrainingState:
    """A convolution, a transposed convolution and a linear layer that train by the recipe's way of weights."""
    torch.manual_seed(seed)
    inner = [nn.Conv2d(3, 8, 3, bias=False), nn.ConvTranspose2d(8, 6, 3, bias=False)]
    model = nn.Sequential()
    for index, (layer, channels) in enumerate(zip(inner, (8, 6), strict=True)):
        model.add_module(f"conv{index}", layer)
        if norms:
            model.add_module(f"norm{index}", nn.BatchNorm2d(channels))
        model.add_module(f"relu{index}", nn.ReLU())
    model.add_module("flat", nn.Flatten())
    model.add_module("head", nn.Linear(6 * 64, 5))
    layers = {}
    for name, module in model.named_children():
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            continue
        with torch.no_grad():
            module.weight.copy_(torch.randn(module.weight.shape) * 0.2)
        layer = TrainedLayer(module, Geometry.of(module))
        if recipe.weights is not None:
            matrix = layer.matrix.detach().clone()
            layer.weight, start = recipe.weights.start(WeightStart(matrix))
            parametrized(layer)
            layer.rewrite(start)
        layers[name] = layer
    return TrainingState(recipe, model, None, layers)


def stepped(state: TrainingState, optimizer: torch.optim.Optimizer, steps: int = 1) -> None:
    """Steps on random images and labels, callbacks called as the loop calls them."""
    state.optimizer = optimizer
    callbacks: tuple[Callback, ...] = state.recipe.callbacks
    for callback in callbacks:
        callback.start(state)
    for _ in range(steps):
        state.measured = {}
        generator = torch.Generator().manual_seed(1000 + state.step)
        images: Tensor = torch.randn(16, 3, 8, 8, generator=generator)
        labels = torch.randint(5, (16,), generator=generator)
        state.batch, state.labels = images, labels
        optimizer.zero_grad()
        F.cross_entropy(state.model(images), labels).backward()
        for callback in callbacks:
            callback.gradients_ready(state)
        optimizer.step()
        with torch.no_grad():
            for callback in callbacks:
                callback.step_done(state)
        state.step += 1
