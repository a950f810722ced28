"""What int8 arithmetic does to each layer: a shift of its outputs, and harm to what the model gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from corank.calibration import Samples, run
from corank.errors import ModelError
from corank.export.int8_ranges import Range
from corank.layers import CodedLayer
from corank.losses import sensitivity_target
from corank.watching import input_of, watched

__all__ = ["Int8Layer", "LayerError", "layer_errors", "round_to"]

_LEVELS = 255


@dataclass(frozen=True)
class LayerError:
    """One layer's error.

    Attributes:
        shift: mean error of each output channel, float32.
        harm: to the output, to second order: KL in nats for logits, else relative squared error; mean over samples.
        operations: multiplications for one sample.
    """

    shift: Tensor
    harm: float
    operations: int


def round_to(values: Tensor, ends: Range) -> Tensor:
    """The values at the closest of 256 between the two ends, zero among them."""
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    step = max((high - low) / _LEVELS, 1e-30)
    offset = round(-low / step)
    return ((values / step).round() + offset).clamp_(0, _LEVELS).sub_(offset).mul_(step)


@dataclass(frozen=True)
class Int8Layer:
    """A coded layer, what int8 makes of its weight (in the layer's own shape), and the range of its inputs."""

    layer: CodedLayer
    weight: Tensor
    ends: Range


def layer_errors(
    model: nn.Module, layers: Mapping[str, Int8Layer], samples: Samples, seed: int = 0
) -> dict[str, LayerError]:
    """The error of each layer's output when it alone computes in int8, and what that does to the model's output.

    With ``g`` the gradient of the log-likelihood of a label drawn from the model's own softmax, ``E[(g e)^2] / 2`` is
    the KL that a small error ``e`` of a layer's output costs (the Fisher information). One forward and one backward
    pass, and each layer twice.

    Args:
        model: quantized, float32, in evaluation mode; not changed.
        layers: its coded layers by name, and what int8 makes of them.
        samples: calibration samples.
        seed: draws the labels.
    """
    sums = {name: _Sum(one, len(samples)) for name, one in layers.items()}
    generator = torch.Generator().manual_seed(seed)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)
    try:
        with watched({name: one.layer for name, one in layers.items()}, lambda name: sums[name].feed):
            for batch in samples.batches:
                with torch.enable_grad():
                    output = run(model, batch)
                    try:
                        target = sensitivity_target(output, generator)
                    except ModelError:  # outputs without a gradient: shifts are found all the same
                        continue
                    target.backward()
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
    return {name: LayerError(one.shift, one.harm, one.operations) for name, one in sums.items()}


class _Sum:
    """Adds up one layer's error over batches."""

    def __init__(self, one: Int8Layer, total: int) -> None:
        layer = one.layer
        self._whole = layer.to_float().requires_grad_(False)
        self._whole.weight = nn.Parameter(one.weight, requires_grad=False)
        self._ends, self._total, self._last = one.ends, total, not layer.geometry.kernel
        self._columns = layer.geometry.matrix_shape[2]
        groups, rows, _ = layer.geometry.matrix_shape
        self.shift, self.harm, self.operations = torch.zeros(groups * rows, dtype=torch.float32), 0.0, 0

    def feed(self, _module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> Tensor:
        inputs = input_of(args, named)
        share = output.shape[0] / self._total
        with torch.no_grad():
            error = self._whole(round_to(inputs, self._ends)) - output
            axis = output.dim() - 1 if self._last else 1
            mean = error.mean([other for other in range(output.dim()) if other != axis])
            error -= mean if self._last else mean.reshape(-1, *[1] * (output.dim() - 2))
            self.shift += share * mean
            self.operations += round(share * self._columns * output[0].numel())
        if not output.requires_grad:
            output = output.detach().requires_grad_(True).clone()

        def take(gradient: Tensor) -> None:
            self.harm += float((gradient * error).flatten(1).sum(1).square().sum()) / (2 * self._total)

        output.register_hook(take)
        return output
