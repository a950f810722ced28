"""Optimizers by name, and the groups of what they train."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import torch
from torch import nn

from corank.config import choose
from corank.errors import ConfigError
from corank.layers import RoundedOperand
from corank.training.recipe import Optimizer
from corank.training.state import TrainingState

__all__ = ["build", "groups_of"]

# Those whose memory of a parameter is all they remember, so that a checkpoint holds it; name to module and class.
_OPTIMIZERS = {
    "adam": ("torch.optim", "Adam"),
    "adamp": ("timm.optim", "AdamP"),
    "adamw": ("torch.optim", "AdamW"),
    "lion": ("timm.optim", "Lion"),
    "nadam": ("torch.optim", "NAdam"),
    "radam": ("torch.optim", "RAdam"),
    "rmsprop": ("torch.optim", "RMSprop"),
    "sgd": ("torch.optim", "SGD"),
    "sgdp": ("timm.optim", "SGDP"),
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
    for module in state.model.modules():
        if isinstance(module, RoundedOperand):
            steps.extend(module.parameters())
    taken = {id(one) for one in (*weights, *steps)}
    rest = [one for one in state.model.parameters() if one.requires_grad and id(one) not in taken]
    weights += [one for one in rest if one.dim() > 1]
    vectors = [one for one in rest if one.dim() <= 1]
    groups = [
        {"params": weights, "lr": how.rate, "weight_decay": how.decay},
        {"params": vectors, "lr": how.rate, "weight_decay": 0.0},
        # a step's factor is not scale-invariant, whatever its shape: AdamP and SGDP, which read delta, leave it alone
        {"params": steps, "lr": how.rate * how.step_rate, "weight_decay": 0.0, "delta": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build(how: Optimizer, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer over the groups.

    Args:
        how: its name and numbers. Where the class takes no momentum, it keeps the coefficients of its paper.
        groups: as torch's optimizers take them, each with ``params`` and, unless they are those of ``how``, ``lr`` and
            ``weight_decay``.

    Raises:
        ConfigError: for a name that is not known, or one of timm where that is not installed.
    """
    library, name = choose(how.name, _OPTIMIZERS, "optimizer")
    if not groups:
        raise ConfigError("nothing trains; a recipe needs weights, norms or biases that do")
    try:
        # The class, and not timm's factory, which gives AdamP another decay ratio and Nesterov's momentum.
        kind = vars(import_module(library))[name]
    except ImportError as error:
        raise ConfigError(
            f"the optimizer {how.name!r} is timm's: pip install 'corank[vision]'; Optimizer('adamw') does without"
        ) from error
    momentum = {"momentum": how.momentum} if "momentum" in inspect.signature(kind).parameters else {}
    return kind(groups, lr=how.rate, weight_decay=how.decay, **momentum)
