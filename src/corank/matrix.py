"""A layer's weight as a stack of matrices ``(G, R, C)``, and the inputs each row multiplies.

Shapes: ``G`` channel groups, ``R`` rows (output channels of a group), ``C`` columns (inputs of a group x kernel
positions), ``N`` samples. This module and ``layers`` are the only places that know what a convolution is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.errors import ModelError
from corank.transfer import sent

__all__ = ["LOOKED_UP", "SUPPORTED", "Geometry", "MatrixModule"]

_CONVOLUTIONS: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED: tuple[type[nn.Module], ...] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TABLE_ENTRIES = 1 << 20  # of a kept table of what a convolution reads: 8 MB
LOOKED_UP: tuple[type[nn.Module], ...] = (nn.Embedding, nn.EmbeddingBag)
_NARROW, _WIDEST = (
    32,
    4096,
)  # columns of a weight whose inputs nobody knows, at least and at most where that is possible


class MatrixModule(nn.Module):
    """A layer that says itself how its weight is a matrix.

    Attributes:
        geometry: of its ``weight``.
    """

    geometry: Geometry


SUPPORTED: tuple[type[nn.Module], ...] = (*_CONVOLUTIONS, *_TRANSPOSED, nn.Linear, MatrixModule)


@dataclass(frozen=True)
class Geometry:
    """How one layer's weight is a stack of matrices, and which inputs its columns see.

    ``padding`` holds (before, after) per spatial axis. A linear layer has an empty ``kernel``; where it is
    ``transposed``, its weight keeps inputs before outputs. ``flat`` are the rows and columns of a weight of any other
    shape, whose numbers are a matrix in their own order. Where the weight is ``looked_up``, its layer is called with
    numbers of rows, and no column sees an input.
    """

    shape: tuple[int, ...]
    groups: int = 1
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    padding_mode: str = "zeros"
    transposed: bool = False
    flat: tuple[int, ...] = ()
    looked_up: bool = False

    @classmethod
    def of(cls, module: nn.Module) -> Geometry:
        """The geometry of a ``Conv1d/2d/3d``, ``ConvTranspose1d/2d/3d``, ``Linear`` or ``Embedding(Bag)`` layer, or of
        a :class:`MatrixModule`.

        Raises:
            ModelError: for any other layer.
        """
        if isinstance(module, nn.Linear):
            return cls((module.out_features, module.in_features))
        if isinstance(module, MatrixModule):
            return module.geometry
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            return cls((module.num_embeddings, module.embedding_dim), looked_up=True)
        if not isinstance(module, (nn.modules.conv._ConvNd,)):
            raise ModelError(
                f"a {type(module).__name__} has no weight matrix known to corank; supported: "
                + ", ".join(kind.__name__ for kind in SUPPORTED)
            )
        per_group = (module.in_channels, module.out_channels // module.groups)
        shape = per_group if module.transposed else (module.out_channels, module.in_channels // module.groups)
        return cls(
            shape=(*shape, *module.kernel_size),
            groups=module.groups,
            kernel=tuple(module.kernel_size),
            stride=tuple(int(step) for step in module.stride),
            padding=_padding(module),
            dilation=tuple(int(step) for step in module.dilation),
            output_padding=tuple(module.output_padding),
            padding_mode=module.padding_mode,
            transposed=module.transposed,
        )

    @classmethod
    def of_shape(cls, shape: tuple[int, ...]) -> Geometry:
        """The geometry of a weight of two axes or more of which only the shape is known.

        The last axis are the columns; axes before it join them while they are few, and long ones are cut. Where the
        weight has few columns all the same, it is read the other way round.
        """
        rows, columns = math.prod(shape[:-1]), shape[-1]
        for size in reversed(shape[1:-1]):
            if columns >= _NARROW:
                break
            rows, columns = rows // size, columns * size
        if columns < _NARROW and columns < rows <= _WIDEST:
            return cls(shape, flat=(columns, rows), transposed=True)
        part = _divisor(columns)
        return cls(shape, flat=(rows * (columns // part), part))

    @property
    def matrix_shape(self) -> tuple[int, int, int]:
        """``(G, R, C)``."""
        if self.flat:
            return 1, self.flat[0], self.flat[1]
        positions = math.prod(self.kernel)
        first, second = self.shape[:2]
        if self.transposed:
            return self.groups, second, first // self.groups * positions
        return self.groups, first // self.groups, second * positions

    @property
    def channels(self) -> int:
        """Of the inputs."""
        return self.shape[0] if self.transposed else self.shape[1] * self.groups

    def to_matrix(self, weight: Tensor) -> Tensor:
        """The weight tensor of the layer as ``(G, R, C)``."""
        groups, rows, columns = self.matrix_shape
        if not self.transposed:
            return weight.reshape(groups, rows, columns)
        split = weight.reshape(groups, -1, rows, math.prod(self.kernel))
        return split.transpose(1, 2).reshape(groups, rows, columns)

    def from_matrix(self, matrix: Tensor) -> Tensor:
        """The inverse of :meth:`to_matrix`; takes ``(G, R, C)`` or ``(G * R, C)``."""
        if not self.transposed:
            return matrix.reshape(self.shape)
        groups, rows, _ = self.matrix_shape
        split = matrix.reshape(groups, rows, -1, math.prod(self.kernel))
        return split.transpose(1, 2).reshape(self.shape)

    def output_positions(self, inputs: Tensor) -> int:
        """Outputs of one row that each sample of ``inputs`` gives (spatial positions, or tokens)."""
        if not self.kernel:
            return max(1, math.prod(inputs.shape[1:-1]))
        return math.prod(self._output_size(inputs.shape[-len(self.kernel) :]))

    def patches(self, inputs: Tensor, limit: int, generator: torch.Generator, real: Tensor | None = None) -> Tensor:
        """Rows of inputs, as the columns of the weight see them.

        Args:
            inputs: what the layer was called with.
            limit: at most this many output positions of each sample, drawn by ``generator`` (the same positions
                for every sample of one call).
            real: of a linear layer, bool in the inputs' shape but for the last axis: which of its rows count; None:
                all. The others are left out after the drawing.

        Returns:
            ``(G, N * positions, C)``, or less; only the drawn positions are ever unfolded.
        """
        if not self.kernel:
            return self._tokens(inputs, limit, generator, real)
        if inputs.dim() == len(self.kernel) + 1:
            inputs = inputs.unsqueeze(0)
        geometry = self
        if self.padding_mode != "zeros":
            amounts = [side for axis in reversed(self.padding) for side in axis]
            inputs = F.pad(inputs, amounts, mode=self.padding_mode)
            geometry = Geometry(**{**self.__dict__, "padding": ((0, 0),) * len(self.kernel), "padding_mode": "zeros"})
        index, valid = geometry._index_table(tuple(inputs.shape[2:]), limit, generator, inputs.device)
        samples, channels = inputs.shape[:2]
        positions, taps = index.shape
        flat, places, inside = inputs.flatten(2), index.flatten(), valid.flatten().to(inputs.dtype)
        parts = (self.groups, channels // self.groups)
        if 2 * len(places) < flat.shape[2]:
            gathered = (flat[:, :, places] * inside).reshape(samples, *parts, positions, taps).permute(1, 0, 3, 2, 4)
        else:  # most places are read, some often: whole pixels at once are faster
            pixels = flat.transpose(1, 2).contiguous().index_select(1, places).mul_(inside[:, None])
            gathered = pixels.reshape(samples, positions, taps, *parts).permute(3, 0, 1, 4, 2)
        return gathered.reshape(self.groups, samples * positions, -1)

    def group_outputs(self, outputs: Tensor) -> Tensor:
        """What the layer gave (or a gradient of that shape), as ``(G, N * positions, R)``."""
        groups, rows, _ = self.matrix_shape
        if not self.kernel:
            return outputs.reshape(1, -1, rows)
        if outputs.dim() == len(self.kernel) + 1:
            outputs = outputs.unsqueeze(0)
        split = outputs.flatten(2).reshape(outputs.shape[0], groups, rows, -1)
        return split.permute(1, 0, 3, 2).reshape(groups, -1, rows)

    def _tokens(self, inputs: Tensor, limit: int, generator: torch.Generator, real: Tensor | None) -> Tensor:
        columns = self.matrix_shape[2]
        tokens = inputs.reshape(inputs.shape[0], -1, columns) if inputs.dim() > 2 else inputs
        real = None if real is None else real.reshape(tokens.shape[:-1])
        if inputs.dim() > 2 and tokens.shape[1] > limit:
            drawn = torch.randperm(tokens.shape[1], generator=generator)[:limit]
            tokens = tokens[:, sent(drawn, inputs.device)]
            real = None if real is None else real[:, sent(drawn, real.device)]
        rows = tokens.reshape(1, -1, columns)
        return rows if real is None else rows[:, sent(real.flatten().nonzero().flatten(), rows.device)]

    def _output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        result = []
        for axis, length in enumerate(size):
            reach = self.dilation[axis] * (self.kernel[axis] - 1)
            before, after = self.padding[axis]
            if self.transposed:
                full = (length - 1) * self.stride[axis] + reach + 1 + self.output_padding[axis]
                result.append(full - before - after)
            else:
                result.append((length + before + after - reach - 1) // self.stride[axis] + 1)
        return tuple(result)

    def _index_table(
        self, size: tuple[int, ...], limit: int, generator: torch.Generator, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Which input each (output position, kernel position) reads, and whether it is inside the input."""
        output = self._output_size(size)
        count = math.prod(output)
        small = count * math.prod(self.kernel) <= _TABLE_ENTRIES
        if count <= limit:
            return _all_reads(self, size, device) if small else _on(device, *self._reads(size, torch.arange(count)))
        drawn = torch.randperm(count, generator=generator)[:limit].sort().values
        if not small:
            return _on(device, *self._reads(size, drawn))
        index, valid = _all_reads(self, size, device)
        drawn = sent(drawn, device)
        return index[drawn], valid[drawn]

    def _reads(self, size: tuple[int, ...], places: Tensor) -> tuple[Tensor, Tensor]:
        """The same for the given output positions."""
        output = self._output_size(size)
        index = torch.zeros(len(places), 1, dtype=torch.long)
        valid = torch.ones(len(places), 1, dtype=torch.bool)
        remaining = math.prod(output)
        for axis, length in enumerate(size):
            remaining //= output[axis]
            place = (places // remaining) % output[axis]
            taps = torch.arange(self.kernel[axis]) * self.dilation[axis]
            if self.transposed:
                spread = place[:, None] + self.padding[axis][0] - taps
                source = spread.div(self.stride[axis], rounding_mode="floor")
                inside = (spread % self.stride[axis] == 0) & (source >= 0) & (source < length)
            else:
                source = place[:, None] * self.stride[axis] - self.padding[axis][0] + taps
                inside = (source >= 0) & (source < length)
            source = source.clamp(0, length - 1)
            index = (index[:, :, None] * length + source[:, None, :]).flatten(1)
            valid = (valid[:, :, None] & inside[:, None, :]).flatten(1)
        return index, valid


@lru_cache(maxsize=16)
def _all_reads(geometry: Geometry, size: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """For every output position; the same batch after batch, and kept where the inputs are."""
    return _on(device, *geometry._reads(size, torch.arange(math.prod(geometry._output_size(size)))))


def _on(device: torch.device, index: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    return sent(index, device), sent(valid, device)


def _divisor(columns: int) -> int:
    """The number itself, or where it is too large its largest divisor that is not; where that is small, itself."""
    part = next((size for size in range(min(columns, _WIDEST), _NARROW - 1, -1) if columns % size == 0), columns)
    return part if columns > _WIDEST else columns


def _padding(module: nn.modules.conv._ConvNd) -> tuple[tuple[int, int], ...]:
    if module.padding == "valid":
        return ((0, 0),) * len(module.kernel_size)
    if module.padding == "same":
        totals = [step * (size - 1) for step, size in zip(module.dilation, module.kernel_size, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((int(side), int(side)) for side in module.padding)
