"""The subnets of a network with elastic layers: what there is to choose, and one of them taken out."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from corank.errors import ConfigError, ModelError
from corank.layers import replace_module
from corank.training.elastic import ConvNorm, Elastic, ElasticConv

__all__ = [
    "Choices", "Space", "active", "choose", "drawn", "extreme", "layers_of", "plain_network", "space_of",
]  # fmt: skip

Space = Mapping[str, tuple[int, ...]]
"""Each choice's name, such as "stages.0.depth", to what there is."""
Choices = Mapping[str, int]
"""One subnet: each choice's name to what is chosen."""


def space_of(model: nn.Module) -> Space:
    """What there is to choose in a network.

    Raises:
        ModelError: for one without elastic layers.
    """
    found = {_joined(name, key): values for name, one in _elastic(model) for key, values in one.choices.items()}
    if not found or not any(isinstance(one, ElasticConv) for one in model.modules()):
        raise ModelError(
            f"this {type(model).__name__} has no elastic layers; corank.models.resolve('elastic:10').model is a "
            "supernet, and docs/supernet.md shows how to build another"
        )
    return found


def choose(model: nn.Module, chosen: Choices) -> None:
    """Makes the network compute as one of its subnets, from now on.

    Args:
        model: with elastic layers.
        chosen: every choice of the network; those of blocks that do not run may be missing.

    Raises:
        ConfigError: for a choice that there is not.
    """
    space = space_of(model)
    unknown = [name for name in chosen if name not in space]
    if unknown:
        raise ConfigError(f"there is no choice {unknown[0][:80]!r}; there are {', '.join(list(space)[:6])}, ...")
    for name, value in chosen.items():
        if value not in space[name]:
            raise ConfigError(f"{name}={value!r}: one of {', '.join(map(str, space[name]))}")
    for name, one in _elastic(model):
        own = {key: chosen.get(_joined(name, key), values[-1]) for key, values in one.choices.items()}
        one.choose(own)
    missing = [name for name in active(model) if name not in chosen]
    if missing:
        raise ConfigError(f"the choice {missing[0]!r} is missing: one of {', '.join(map(str, space[missing[0]]))}")


def active(model: nn.Module) -> Space:
    """What there is to choose in the parts of the network that run, as it is chosen."""
    resting = {id(inner) for _, one in _elastic(model) for part in one.resting for inner in part.modules()}
    return {
        _joined(name, key): values
        for name, one in _elastic(model)
        if id(one) not in resting
        for key, values in one.choices.items()
    }


def extreme(space: Space, largest: bool) -> Choices:
    """The largest, or the smallest, subnet."""
    return {name: values[-1 if largest else 0] for name, values in space.items()}


def drawn(space: Space, generator: torch.Generator) -> Choices:
    """A subnet, each choice with even chances."""
    return {name: values[int(torch.randint(len(values), (1,), generator=generator))] for name, values in space.items()}


def layers_of(model: nn.Module) -> Iterator[tuple[str, ElasticConv]]:
    """Its elastic convolutions, by name."""
    for name, module in model.named_modules():
        if isinstance(module, ElasticConv):
            yield name, module


@torch.no_grad()
def plain_network(model: nn.Module) -> nn.Module:
    """The subnet that is chosen as an ordinary float network, in evaluation mode, with the weights that it took."""
    space_of(model)
    states = {name: one.float_state() for name, one in layers_of(model)}
    like = next(iter(states.values()))["conv.weight"]
    found = model.plain() if isinstance(model, Elastic) else copy.deepcopy(model)
    while inside := next((one for one in found.modules() if isinstance(one, Elastic)), None):
        replace_module(found, inside, inside.plain())
    for one in [one for one in found.modules() if isinstance(one, ElasticConv)]:
        replace_module(found, one, ConvNorm(one.now))
    for name, module in found.named_modules():
        if isinstance(module, ConvNorm):
            if name not in states:
                raise ModelError(f"what plain() gave has a layer {name!r} that this {type(model).__name__} has not")
            module.to(like).load_state_dict(states[name])
    return found.to(like).eval().requires_grad_(False)


def _elastic(model: nn.Module) -> Iterator[tuple[str, Elastic]]:
    for name, module in model.named_modules():
        if isinstance(module, Elastic):
            yield name, module


def _joined(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key
