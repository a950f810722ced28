"""The adapter's factors in 8 or 4 bits, one fp16 scale for each side of each direction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corank.adapters.low_rank import LowRank
from corank.codecs import Uniform
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError

__all__ = ["CodedLowRank", "bits_per_rank", "code_factors"]


@dataclass(frozen=True)
class CodedLowRank:
    """A low-rank adapter as stored.

    Attributes:
        left: ``(G * r, R)`` coded, a row for each direction.
        right: ``(G * r, C)`` coded, a row for each direction.
        groups: ``G``.
    """

    left: CodedWeight
    right: CodedWeight
    groups: int

    @property
    def rank(self) -> int:
        return self.left.codes.shape[0] // self.groups

    @property
    def size_bits(self) -> int:
        """All bits stored: codes and scales of both sides."""
        sides = (self.left, self.right)
        return sum(side.codes.numel() * side.codebook.code_bits + side.codebook.size_bits for side in sides)

    def product(self) -> Tensor:
        """``(G * R, C)`` float32."""
        left = self.left.decode().reshape(self.groups, self.rank, -1)
        right = self.right.decode().reshape(self.groups, self.rank, -1)
        return (left.transpose(1, 2) @ right).flatten(0, 1)

    @property
    def bits(self) -> int:
        """Of each code."""
        return self.left.codebook.code_bits

    def to(self, device: torch.device) -> CodedLowRank:
        """The same there."""
        left, right = (_placed(side, device) for side in (self.left, self.right))
        return CodedLowRank(left, right, self.groups)

    def behind(self, other: CodedLowRank | None) -> CodedLowRank:
        """One adapter of the directions of ``other`` and, behind them, these: codes and scales as they are.

        Raises:
            ConfigError: for an adapter of codes of another width.
        """
        if other is None:
            return self
        if other.bits != self.bits:
            raise ConfigError(f"adapters of {other.bits} and {self.bits} bits; one layer has factors of one width")
        sides = ((other.left, self.left), (other.right, self.right))
        left, right = (_stacked(first, second, self.groups) for first, second in sides)
        return CodedLowRank(left, right, self.groups)


def _placed(side: CodedWeight, device: torch.device) -> CodedWeight:
    codes, scale = side.codes.to(device), side.codebook.tensors()["scale"].float().to(device)
    return CodedWeight(codes, factor_codec(side.codebook.code_bits).codebook({"scale": scale}, *codes.shape))


def _stacked(first: CodedWeight, second: CodedWeight, groups: int) -> CodedWeight:
    """The rows of both, group by group."""

    def both(one: Tensor, other: Tensor) -> Tensor:
        return torch.cat([one.unflatten(0, (groups, -1)), other.unflatten(0, (groups, -1))], 1).flatten(0, 1)

    codes = both(first.codes, second.codes)
    scales = [part.codebook.tensors()["scale"].float().reshape(len(part.codes), 1) for part in (first, second)]
    book = factor_codec(first.codebook.code_bits).codebook({"scale": both(*scales)}, *codes.shape)
    return CodedWeight(codes, book)


def code_factors(adapter: LowRank, bits: int) -> CodedLowRank:
    """Rounds both factors to the nearest of ``2 ** bits`` symmetric levels (CoRa, step 5: 8 bits, min-max).

    Raises:
        ConfigError: unless ``bits`` is 2 to 8.
    """
    codec = factor_codec(bits)
    sides = (adapter.left.transpose(1, 2).flatten(0, 1), adapter.right.flatten(0, 1))
    coded = []
    for side in sides:
        codebook = codec.fit(side)
        coded.append(CodedWeight(codebook.nearest(side), codebook))
    return CodedLowRank(coded[0], coded[1], adapter.left.shape[0])


def factor_codec(bits: int) -> Uniform:
    """The codec of adapter factors of that width."""
    if bits not in range(2, 9):
        raise ConfigError(f"adapter_bits={bits!r}: adapters are stored in 2 to 8 bits, usually 8 or 4")
    return Uniform(bits=bits, symmetric=True)


def bits_per_rank(shape: tuple[int, int, int], bits: int) -> int:
    """All bits that one more rank costs a layer of matrix shape ``(G, R, C)``: codes and scales of both sides."""
    groups, rows, columns = shape
    codec = factor_codec(bits)
    return codec.size_bits(groups, rows) + codec.size_bits(groups, columns)
