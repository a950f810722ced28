"""What a model is called with and what it gives, under the names that an exported graph uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from corank.calibration import Samples, run
from corank.errors import ModelError

__all__ = ["INPUT", "OUTPUT", "Axes", "named_inputs", "named_outputs", "outputs_of"]

INPUT, OUTPUT = "input", "output"
Axes = Sequence[int] | Mapping[str, Sequence[int]]  # of every input, or by its name


def named_inputs(example: Any) -> dict[str, Tensor]:
    """The tensors of an example by name: ``input`` for a tensor, its own keys for a mapping of keyword arguments.

    Floating tensors are in float32, as networks are when they are exported, whatever they were before.

    Raises:
        DataError: for anything else, or values that are not finite.
    """
    batch = Samples.of([example], 1 << 30).batches[0]
    named = {INPUT: batch} if isinstance(batch, Tensor) else dict(batch)
    return {name: value.float() if value.is_floating_point() else value for name, value in named.items()}


def named_outputs(result: Any) -> dict[str, Tensor]:
    """The tensors that a model gave: ``output`` for one, ``output_0`` and on for a sequence, its keys for a mapping.

    Values of a mapping or sequence that are no tensors (caches) are left out.

    Raises:
        ModelError: when there is no tensor.
    """
    if isinstance(result, Tensor):
        return {OUTPUT: result}
    found: dict[str, Tensor] = {}
    if isinstance(result, Mapping):
        found = {str(name): value for name, value in result.items() if isinstance(value, Tensor)}
    elif isinstance(result, (tuple, list)):
        found = {f"{OUTPUT}_{place}": value for place, value in enumerate(result) if isinstance(value, Tensor)}
    if not found:
        raise ModelError(
            f"the model gives a {type(result).__name__} without a tensor at its top; export takes models that give a "
            "tensor, or a tuple, list or mapping of tensors"
        )
    return found


def outputs_of(model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What ``model`` gives for :func:`named_inputs`, on the CPU, without gradients."""
    batch = inputs[INPUT] if tuple(inputs) == (INPUT,) else dict(inputs)
    with torch.no_grad():
        return named_outputs(run(model, batch))
