"""What another runtime gives beside what PyTorch gives."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from corank.errors import ConfigError, ModelError
from corank.export.example import named_inputs, outputs_of
from corank.layers import CodedLayer

__all__ = ["ROUNDED_INPUTS", "Checked", "Expected", "check", "expected_of", "rounds_inputs"]

Arrays = Mapping[str, NDArray[Any]]
_RUNS = 7
WEIGHTS_ONLY, ROUNDED_INPUTS = 1e-4, 5e-2


@dataclass(frozen=True)
class Expected:
    """What PyTorch gives for an example.

    Attributes:
        inputs, outputs: by name.
        tolerance: of the largest difference, over the largest output.
        rounded: some layers round their inputs.
    """

    inputs: Arrays
    outputs: Arrays
    tolerance: float
    rounded: bool


@dataclass(frozen=True)
class Checked:
    """How the runtime's outputs differ, absolutely and over the largest output, and its median milliseconds."""

    max_difference: float
    relative_difference: float
    latency_ms: float


def rounds_inputs(model: nn.Module) -> bool:
    """Whether some layer rounds its inputs."""
    return any(isinstance(module, CodedLayer) and module.inputs is not None for module in model.modules())


def expected_of(model: nn.Module, example: Any, tolerance: float | None) -> Expected:
    """Runs the quantized model in float32 on the CPU.

    Args:
        model: not changed.
        example: a tensor or a mapping of tensors.
        tolerance: None for 1e-4, or 5e-2 where layers round their inputs: there a sum in another order may fall on
            the other side of a step.

    Raises:
        ConfigError: for a tolerance that is not positive. DataError: for an example the model cannot take.
    """
    if tolerance is not None and not 0 < tolerance < math.inf:
        raise ConfigError(f"tolerance={tolerance!r}: a positive share of the largest output, e.g. 1e-4")
    plain = copy.deepcopy(model).cpu().float().eval()
    inputs = named_inputs(example)
    rounded = rounds_inputs(plain)
    allowed = tolerance or (ROUNDED_INPUTS if rounded else WEIGHTS_ONLY)
    return Expected(_arrays(inputs), _arrays(outputs_of(plain, inputs)), allowed, rounded)


def check(expected: Expected, run: Callable[[Arrays], Arrays], runtime: str) -> Checked:
    """Runs the example in ``runtime`` a few times and compares.

    Raises:
        ModelError: when outputs are missing, of another shape, not finite, or further off than the tolerance.
    """
    given = run(expected.inputs)
    worst = relative = 0.0
    for name, wanted in expected.outputs.items():
        found = given.get(name)
        if found is None or found.shape != wanted.shape:
            raise ModelError(f"nothing was written: {runtime} gives no output {name!r} of shape {wanted.shape}")
        difference = float(np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max(initial=0.0))
        worst = max(worst, difference)
        relative = max(relative, difference / max(float(np.abs(wanted).max(initial=0.0)), 1e-30))
    if not relative <= expected.tolerance:
        raise ModelError(
            f"nothing was written: outputs of {runtime} differ from PyTorch's by {relative:.2g} of the largest, and "
            f"{expected.tolerance:.2g} is allowed; give tolerance= to write the file all the same"
        )
    times = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        run(expected.inputs)
        times.append(1000 * (time.perf_counter() - started))
    return Checked(worst, relative, statistics.median(times))


def _arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}
