"""Real-valued shortcuts round single layers (Bi-Real Net, arXiv 1808.00278; ReActNet, arXiv 2003.03488)."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.errors import ModelError
from corank.matrix import Geometry

__all__ = ["NORMS", "Shortcut", "takes_a_shortcut"]

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
"""That a shortcut goes round."""
_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class Shortcut(nn.Module):
    """``norm(layer(x)) + x``, whatever the layer rounds its own inputs to. Without parameters of its own.

    Where the layer has a stride, ``x`` is averaged over it; where it has a multiple of the channels, they are repeated,
    and where it has a fraction of them, each is the mean of as many that stand beside one another.

    Args:
        layer: that :func:`takes_a_shortcut`.
        norm: a batch norm, or None.

    Raises:
        ModelError: for other layers or norms.
    """

    def __init__(self, layer: nn.Module, norm: nn.Module | None = None) -> None:
        super().__init__()
        if not takes_a_shortcut(layer):
            raise ModelError(
                f"{layer} takes no shortcut: a Linear or convolution is needed whose size is that of its inputs over "
                "its stride, and whose channels are a multiple or a fraction of theirs"
            )
        if norm is not None and not isinstance(norm, NORMS):
            raise ModelError(f"a {type(norm).__name__} is no norm that a shortcut goes round: {NORMS[0].__name__}, ...")
        geometry = Geometry.of(layer)
        self.layer, self.norm = layer, nn.Identity() if norm is None else norm
        self._stride, self._channels = geometry.stride, _outputs(geometry)
        self.train(layer.training)

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs as the layer takes them, with an axis of samples."""
        return self.norm(self.layer(inputs)) + self._past(inputs)

    def _past(self, inputs: Tensor) -> Tensor:
        axis = inputs.dim() - 1 - len(self._stride)
        if prod(self._stride) > 1:
            # Borders of a size that is no multiple count what is there: as many means as the layer has outputs.
            inputs = _POOLS[len(self._stride)](inputs, self._stride, self._stride, 0, True, False)
        given = inputs.shape[axis]
        if given < self._channels:
            return torch.cat([inputs] * (self._channels // given), axis)
        if given > self._channels:
            return inputs.unflatten(axis, (self._channels, given // self._channels)).mean(axis + 1)
        return inputs


def takes_a_shortcut(layer: nn.Module) -> bool:
    """Whether a layer's outputs have the size that averaging its inputs over its stride gives, and its channels are a
    multiple or a fraction of theirs."""
    if not isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return False
    geometry = Geometry.of(layer)
    reach = [step * (size - 1) for step, size in zip(geometry.dilation, geometry.kernel, strict=True)]
    centred = all(sum(sides) == length for sides, length in zip(geometry.padding, reach, strict=True))
    less, more = sorted((geometry.channels, _outputs(geometry)))
    return centred and more % less == 0


def _outputs(geometry: Geometry) -> int:
    groups, rows, _ = geometry.matrix_shape
    return groups * rows
