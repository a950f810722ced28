"""How far each trained layer's outputs are from the float network's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from corank.calibration import run
from corank.devices import device_of
from corank.layers import CodedLayer, names_of
from corank.watching import watched

__all__ = ["layer_errors"]


@torch.no_grad()
def layer_errors(model: nn.Module, teacher: nn.Module, batch: Any, norms: Mapping[str, str]) -> dict[str, float]:
    """``mean |y - y_q|^2 / mean |y|^2`` of every coded layer, each network fed by its own layers before.

    Args:
        model: holds coded layers.
        teacher: the float network, norms folded.
        batch: of samples.
        norms: by layer, the norm behind it that the teacher has folded and ``model`` has not.
    """
    names = names_of(model)
    coded = [names[id(module)][0] for module in model.modules() if isinstance(module, CodedLayer)]
    inner, outer = (
        dict(model.named_modules(remove_duplicate=False)),
        dict(teacher.named_modules(remove_duplicate=False)),
    )
    given: dict[str, Tensor] = {}
    expected: dict[str, Tensor] = {}

    def keeper(found: dict[str, Tensor]) -> Callable[[str], Callable[..., None]]:
        def at(name: str) -> Callable[..., None]:
            def keep(_module: nn.Module, _inputs: object, _named: object, output: Tensor) -> None:
                found[name] = output.float()

            return keep

        return at

    with watched({name: inner[norms.get(name, name)] for name in coded}, keeper(given)):
        run(model, batch, device_of(model))
    with watched({name: outer[name] for name in coded}, keeper(expected)):
        run(teacher, batch, device_of(teacher))
    return {
        name: float((given[name] - one).square().sum() / one.square().sum().clamp(min=1e-30))
        for name, one in expected.items()
        if name in given and given[name].shape == one.shape
    }
