"""Weights that a module computes from others, such as by a weight norm: what comes of it in their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

__all__ = ["computed_before", "computed_weights", "make_effective"]


def computed_weights(module: nn.Module) -> list[str]:
    """The parameters that a module computes by torch's parametrizations, or its older weight and spectral norms."""
    found = [hook.name for hook in _norms(module)]
    return [*found, *cast(nn.ModuleDict, module.parametrizations)] if parametrize.is_parametrized(module) else found


def computed_before(model: nn.Module) -> dict[int, Tensor]:
    """By identity, what older norms left on their modules in the last pass, detached: the memory of a copy, as what has
    a history cannot be copied."""
    found: dict[int, Tensor] = {}
    for module in model.modules():
        for hook in _norms(module):
            last = module.__dict__.get(hook.name)
            if isinstance(last, Tensor):
                found[id(last)] = last.detach().clone()
    return found


def make_effective(model: nn.Module, wanted: Callable[[nn.Module], bool] = lambda _: True) -> None:
    """Makes what modules compute plain parameters again, in place.

    Args:
        model: in evaluation mode.
        wanted: of which modules.
    """
    for module in list(model.modules()):
        if not computed_weights(module) or not wanted(module):
            continue
        for hook in _norms(module):
            (remove_weight_norm if isinstance(hook, WeightNorm) else remove_spectral_norm)(module, hook.name)
        if parametrize.is_parametrized(module):
            # Without torch's own removal, which takes the weight off a class that copies of the module share.
            names = list(cast(nn.ModuleDict, module.parametrizations))
            weights = {name: nn.Parameter(cast(Tensor, getattr(module, name)).detach().clone()) for name in names}
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module._modules["parametrizations"]
            module._parameters.update(weights)


def _norms(module: nn.Module) -> list[Any]:
    return [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, (WeightNorm, SpectralNorm))]
