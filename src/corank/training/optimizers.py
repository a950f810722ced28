"""Optimizers by name, and the groups of what they train."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from corank.config import choose
from corank.errors import ConfigError
from corank.training.recipe import Optimizer
from corank.training.state import TrainingState

__all__ = ["build", "groups_of"]

_TORCH: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


def groups_of(state: TrainingState) -> list[dict[str, Any]]:
    """What trains: weights (with decay), biases and norms (without), and what ways of training learn beside them."""
    how = state.recipe.optimizer
    weights: list[nn.Parameter] = []
    steps: list[nn.Parameter] = []
    for layer in state.layers.values():
        if layer.weight is not None:
            for name, one in layer.weight.named_parameters():
                (weights if name in layer.weight.latents else steps).append(one)
        if layer.inputs is not None:
            steps.extend(layer.inputs.parameters())
    taken = {id(one) for one in (*weights, *steps)}
    rest = [one for one in state.model.parameters() if one.requires_grad and id(one) not in taken]
    weights += [one for one in rest if one.dim() > 1]
    vectors = [one for one in rest if one.dim() <= 1]
    groups = [
        {"params": weights, "lr": how.rate, "weight_decay": how.decay},
        {"params": vectors, "lr": how.rate, "weight_decay": 0.0},
        {"params": steps, "lr": how.rate * how.step_rate, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build(how: Optimizer, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer over the groups.

    Raises:
        ConfigError: for a name that is not known.
    """
    kind = choose(how.name, _TORCH, "optimizer")
    takes_momentum = "momentum" in inspect.signature(kind).parameters
    if not groups:
        raise ConfigError("nothing trains; a recipe needs weights, norms or biases that do")
    return kind(groups, momentum=how.momentum) if takes_momentum else kind(groups)  # pyright: ignore[reportCallIssue]
