"""The loss of a refinement that looks at every coded layer's output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from corank.layers import CodedLayer
from corank.padding import masks_of, real_rows
from corank.refine.trainable_model import TrainableModel
from corank.training.penalties import Penalty
from corank.training.state import TrainingState
from corank.watching import watched

__all__ = ["FeatureDistance"]

_GIVEN, _EXPECTED = "given:", "expected:"


@dataclass(frozen=True)
class FeatureDistance(Penalty):
    """The mean over coded layers of the squared error of their outputs, relative to the float ones' energy.

    Padding is left out. Layers that the two networks gave other numbers of rows (experts that tokens are routed to)
    have none.

    Args:
        weight: that it is added with.
    """

    weight: float = 1.0

    def start(self, state: TrainingState) -> None:
        layers, teacher = _layers(state), cast(nn.Module, state.teacher)
        floats = dict(teacher.named_modules(remove_duplicate=False))
        watching = {f"{_GIVEN}{name}": layer for name, layer in layers.items()}
        watching.update({f"{_EXPECTED}{name}": floats[name] for name in layers})
        state.closing.enter_context(watched(watching, lambda name: _keeper(state, name)))

    def __call__(self, state: TrainingState, loss: Tensor) -> Tensor:
        masks, errors, layers = masks_of(state.batch), [], _layers(state)
        for name in [name.removeprefix(_GIVEN) for name in state.outputs if name.startswith(_GIVEN)]:
            given, known = state.outputs[f"{_GIVEN}{name}"][0], state.outputs.get(f"{_EXPECTED}{name}")
            if known is None or known[0].shape != given.shape or not given.numel():
                continue
            expected = known[0]
            if not layers[name].geometry.kernel:
                given, expected = real_rows(masks, given), real_rows(masks, expected)
            expected = expected.float()
            errors.append((given.float() - expected).square().sum() / expected.square().sum().clamp(min=1e-12))
        state.outputs.clear()
        return self.weight * torch.stack(errors).mean() if errors else torch.zeros_like(loss)


def _layers(state: TrainingState) -> dict[str, CodedLayer]:
    return cast(TrainableModel, state.model).layers


def _keeper(state: TrainingState, name: str) -> Callable[..., None]:
    def keep(_module: nn.Module, _inputs: object, _named: object, output: Tensor) -> None:
        state.outputs[name] = [output]

    return keep
