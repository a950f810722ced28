"""A small network in training, stepped by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.data import ImageSet
from corank.data.arrays import from_pixels
from corank.matrix import Geometry
from corank.training.recipe import Recipe
from corank.training.state import TrainedLayer, TrainingState, parametrized
from corank.training.weights import WeightStart


def small_network(inplace: bool = False) -> nn.Sequential:
    """Images (N, 3, 8, 8) to logits (N, 4)."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace),
        nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2), nn.ReLU(inplace),
        nn.Flatten(), nn.Linear(128, 4),
    )  # fmt: skip


def state_of(model: nn.Module, recipe: Recipe, seed: int = 0) -> TrainingState:
    """All layers of ``model`` as ``recipe.weights`` trains them, in place."""
    layers = {}
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            layer = layers[name] = TrainedLayer(module, Geometry.of(module))
            if recipe.weights is not None:
                layer.weight, latent = recipe.weights.start(WeightStart(layer.matrix.detach().clone()))
                parametrized(layer)
                layer.rewrite(latent)
    return TrainingState(recipe, model, None, layers, seed)


def labelled_images(count: int = 32) -> ImageSet:
    """The same for the public call."""
    labels = np.arange(count) % 4
    pixels = np.random.default_rng(0).integers(0, 120, (count, 8, 8, 3)) + 40 * labels[:, None, None, None]
    source = from_pixels(pixels.astype(np.uint8), labels.astype(np.int64), None, "little")
    return ImageSet(source.source, source.preprocessing, labels.astype(np.int64), ("a", "b", "c", "d"))


def images(count: int = 16) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count) % 4
    return torch.randn(count, 3, 8, 8, dtype=torch.float32) + labels[:, None, None, None] - 1.5, labels


def train(
    state: TrainingState, steps: range, rate: float = 0.01, watch: Callable[[], None] | None = None
) -> list[float]:
    """Plain gradient steps on fresh images a step, penalties and callbacks called as the loop calls them."""
    recipe, losses = state.recipe, []
    for part in (*recipe.penalties, *recipe.callbacks):
        part.start(state)
    parameters = [one for one in state.model.parameters() if one.requires_grad]
    state.model.train()
    for state.step in steps:
        torch.manual_seed(state.step)
        state.batch, state.labels = images()
        loss = F.cross_entropy(state.model(state.batch), state.labels)
        losses.append(float(loss.detach()))
        total = loss
        for penalty in recipe.penalties:
            total = total + penalty(state, loss)
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        with torch.no_grad():
            for one, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    one -= rate * gradient
            for callback in recipe.callbacks:
                callback.step_done(state)
        if watch is not None:
            watch()
    for callback in recipe.callbacks:
        callback.finished(state)
    return losses
