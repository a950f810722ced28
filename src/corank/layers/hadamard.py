"""Random-sign Hadamard rotations: orthogonal, fast, the same for the same size and seed everywhere.

An outlier of a vector is spread over all of its numbers, so that the vector's rotation has none (incoherence; QuIP#,
arXiv 2402.04396; QuaRot, arXiv 2404.00456).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

__all__ = ["LARGEST_ODD", "Rotation", "factors_of"]

LARGEST_ODD = 512
"""The largest odd factor of a width that is mixed; else each part of a power of two is rotated by itself."""
_RADIX = 6  # bits: matrices of at most 64


class Rotation(nn.Module):
    """``x Q`` with ``Q = diag(signs) K``, ``K`` the Kronecker product of small orthogonal matrices.

    They are Hadamard matrices of 2 to 64 rows, which together make the one of the largest power of two in the width,
    and for the odd factor ``m`` left the discrete Hartley transform ``cas(2 pi j k / m) / sqrt(m)``, whose numbers are
    at most ``sqrt(2 / m)``: real, symmetric and orthogonal for every ``m``. All are symmetric, so ``K`` is its own
    inverse. ``N`` vectors of ``C`` numbers take ``N C`` times the sum of those sizes, not ``N C^2``.

    Args:
        size: ``C``, of the vectors that are rotated.
        seed: of the signs: bits of SHAKE-256, whatever the version of torch.
        like: gives dtype and device; on the meta device, the CPU.
    """

    signs: Tensor

    def __init__(self, size: int, seed: int, like: Tensor) -> None:
        super().__init__()
        self.size, self.seed = size, seed
        self._factors = factors_of(size)
        place = torch.device("cpu") if like.is_meta else like.device
        told = hashlib.shake_256(f"corank rotation {seed} {size}".encode()).digest(-(-size // 8))
        bits = torch.frombuffer(bytearray(told), dtype=torch.uint8)[:, None] >> torch.arange(8, dtype=torch.uint8)
        signs = ((bits & 1).flatten()[:size].to(torch.int8) * 2 - 1).to(place)
        self.register_buffer("signs", signs, persistent=False)
        for factor in dict.fromkeys(self._factors):
            self.register_buffer(f"mixer_{factor}", _mixer(factor).to(place, like.dtype), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """``x Q`` of inputs ``(..., C)``, in their dtype."""
        return self._mixed(input * self.signs.to(input.dtype))

    def back(self, rotated: Tensor) -> Tensor:
        """The inverse, ``x Q^T``."""
        return self._mixed(rotated) * self.signs.to(rotated.dtype)

    def matrix(self) -> Tensor:
        """``Q (C, C)`` float64."""
        mixed = torch.ones(1, 1, dtype=torch.float64)
        for factor in self._factors:
            mixed = torch.kron(mixed, _mixer(factor))
        blocks = self.size // mixed.shape[0]
        whole = torch.block_diag(*[mixed] * blocks)
        return self.signs.cpu().double()[:, None] * whole

    def _mixed(self, given: Tensor) -> Tensor:
        """``x K``: each factor is multiplied along the first of the axes, which then becomes the last."""
        shape, whole = given.shape, math.prod(self._factors)
        parts = given.reshape(*shape[:-1], self.size // whole, whole)
        for factor in self._factors:
            mixer = cast(Tensor, self._buffers[f"mixer_{factor}"]).to(given.dtype)
            parts = (parts.unflatten(-1, (factor, whole // factor)).transpose(-1, -2) @ mixer).flatten(-2)
        return parts.reshape(shape)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Rotation:
        super()._apply(fn, recurse)
        for factor in dict.fromkeys(self._factors):  # casting there and back loses nothing
            cast_one = cast(Tensor, self._buffers[f"mixer_{factor}"])
            if not cast_one.is_meta:
                self._buffers[f"mixer_{factor}"] = _mixer(factor).to(cast_one.device, cast_one.dtype)
        return self

    def extra_repr(self) -> str:
        return f"{self.size}, seed={self.seed}"


def factors_of(size: int) -> tuple[int, ...]:
    """The sizes of the matrices whose Kronecker product mixes a width: powers of two of at most 64, then an odd factor
    of at most :data:`LARGEST_ODD`. Their product is the width, or the largest power of two in it."""
    twos = (size & -size).bit_length() - 1
    parts = -(-twos // _RADIX)
    powers = [1 << (twos // parts + (place < twos % parts)) for place in range(parts)] if parts else []
    odd = size >> twos
    return (*powers, *([odd] if 1 < odd <= LARGEST_ODD else []))


def _mixer(size: int) -> Tensor:
    """A symmetric orthogonal matrix ``(size, size)`` float64: Hadamard's of a power of two, else Hartley's."""
    if size & (size - 1) == 0:
        made = torch.ones(1, 1, dtype=torch.float64)
        while made.shape[0] < size:
            made = torch.cat([torch.cat([made, made], 1), torch.cat([made, -made], 1)])
        return made / math.sqrt(size)
    places = torch.arange(size)
    angles = (places[:, None] * places % size).double() * (2 * math.pi / size)
    return (angles.cos() + angles.sin()) / math.sqrt(size)
