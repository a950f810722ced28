"""Steps of symmetric int8 weights, exact for rows that lie on a grid already.

Shapes: ``R`` rows (output channels), ``C`` columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from corank.calibration import Samples, collect
from corank.codecs import ScalarCodebook
from corank.layers import CodedLayer
from corank.rounding import Gptq

__all__ = ["Int8Weight", "int8_weights", "row_steps"]

_PARTS = (1, 2, 3, 4)  # of the smallest gap between two values of a row, tried as its step
_CLOSE = 1e-3  # steps
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Int8Weight:
    """A layer's weight in int8.

    Attributes:
        steps: ``(R,)`` float32; ``(1,)`` where the whole weight has one.
        values: codes times steps, in the layer's own shape.
    """

    steps: NDArray[np.float32]
    values: Tensor

    @property
    def whole(self) -> bool:
        """Whether there is one step for the whole weight."""
        return len(self.steps) < len(self.values)


def int8_weights(
    model: nn.Module, layers: Mapping[str, CodedLayer], samples: Samples, largest: int
) -> dict[str, Int8Weight]:
    """The layers' weights, each row with a step of its own.

    Rows that lie on a grid keep their values; layers with other rows are rounded by GPTQ.

    Args:
        model: quantized, float32, in evaluation mode.
        layers: its convolutions and linear layers, by name; none transposed.
        samples: calibration samples.
        largest: magnitude of a code: 127, or 64 where the processor needs 7 bits.
    """
    rows = {name: layer.weight.detach().flatten(1) for name, layer in layers.items()}
    steps = {name: row_steps(weight.numpy(), largest) for name, weight in rows.items()}
    # A codebook like any other, so that nearest and GPTQ can be used as they are.
    books = {name: _book(torch.from_numpy(steps[name]), rows[name].shape[1], largest) for name in layers}
    codes = {name: book.nearest(rows[name]) for name, book in books.items()}
    # Only these need the samples: a network whose rows all lie on grids is exported without a single pass.
    off = {name: layers[name] for name, book in books.items() if not _exact(rows[name], book, codes[name])}
    for name, grams in collect(model, off, samples).items() if off else ():
        codes[name] = Gptq()(rows[name], books[name], grams)
    return {
        name: Int8Weight(steps[name], books[name].values(codes[name]).reshape(layer.weight.shape))
        for name, layer in layers.items()
    }


def _book(steps: Tensor, columns: int, largest: int) -> ScalarCodebook:
    scale = steps[:, None]
    return ScalarCodebook(
        torch.arange(-float(largest), largest + 1, dtype=torch.float32), scale, torch.zeros_like(scale), columns
    )


def _exact(rows: Tensor, book: ScalarCodebook, codes: Tensor) -> bool:
    return bool(((book.values(codes) - rows).abs() <= _CLOSE * book.scale).all())


def row_steps(weight: NDArray[np.float32], largest: int) -> NDArray[np.float32]:
    """One step for each row.

    A row of few values, as codes of 4 bits without an adapter give it, keeps its own step and loses nothing. Any other
    row gets its largest magnitude over ``largest``.

    Args:
        weight: ``(R, C)``.
        largest: magnitude of a code.

    Returns:
        ``(R,)`` float32, above zero.
    """
    # Gaps are differences of like numbers, which float32 would round once more.
    rows = weight.astype(np.float64)
    # A row of zeros must have a step too.
    steps = np.maximum(np.abs(rows).max(1) / largest, _SMALLEST)
    for place, row in enumerate(rows):
        steps[place] = _own_step(np.unique(row), largest) or steps[place]
    return steps.astype(np.float32)


def _own_step(values: NDArray[np.float64], largest: int) -> float | None:
    """The step of the grid that a row's distinct ``values`` lie on; None where there is none of so few codes."""
    # More values than codes cannot lie on a grid; one value has no gap, and is exact as the row's largest.
    if not 2 <= len(values) <= 2 * largest + 1:
        return None
    # The step itself where two neighbouring codes occur, which few weights need not do: then a part of the gap is.
    gap = min(after - before for before, after in pairwise(values.tolist()))
    for part in _PARTS:
        codes = np.rint(values * part / gap)
        # Further parts make codes only larger.
        if np.abs(codes).max() > largest:
            return None
        step = float(values @ codes / (codes @ codes))  # of least squared error: the gap is a difference of floats
        if np.abs(values / step - codes).max() < _CLOSE:
            return step
    return None
