"""Which layer gets an adapter of which rank: as asked for, or as a file of a size leaves room for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from corank.adapters import CodedLowRank, bits_per_rank
from corank.adapters.factor_codes import factor_codec
from corank.coded_weight import CodedWeight
from corank.errors import BudgetError, ConfigError, ModelError
from corank.layers import CodedLayer, module_named
from corank.storage.adapter_file import adapter_bytes
from corank.storage.task_adapter import TaskAdapter, rooms

__all__ = ["Room", "adapter_room"]

Ranks = dict[str, int]


@dataclass(frozen=True)
class Room:
    """What adapters a network takes.

    Attributes:
        most: by layer, the largest rank.
        shapes: by layer, ``(G, R, C)``.
        bits: by layer, of the factors' codes.
    """

    most: Mapping[str, int]
    shapes: Mapping[str, tuple[int, int, int]]
    bits: Mapping[str, int]

    def ranks(self, asked: int | Mapping[str, int]) -> Ranks:
        """Ranks above zero by layer: a number for all, of which each gets at most what it takes, or one each.

        Raises:
            ConfigError: for a rank that cannot be, or that a layer does not take. ModelError: where none takes any.
        """
        if isinstance(asked, Mapping):
            for name, rank in asked.items():
                self._check(name, rank)
            return {name: rank for name, rank in asked.items() if rank}
        if type(asked) is not int or asked < 0:
            raise ConfigError(f"rank={asked!r}: a whole number from 0, or such by layer name, e.g. rank=4")
        if asked and not self.most:
            raise ModelError(
                "no layer of this network takes an adapter: it has no coded linear layer or convolution of more than "
                "one input a channel group; rank=0 trains biases and a new last layer alone"
            )
        if self.most and asked > max(self.most.values()):
            widest = max(self.most, key=lambda name: self.most[name])
            raise ConfigError(f"rank={asked}: the layers take ranks to {self.most[widest]} (that is {widest!r})")
        return {name: min(asked, most) for name, most in self.most.items() if asked}

    def _check(self, name: str, rank: int) -> None:
        if name not in self.most:
            raise ConfigError(f"rank: {str(name)[:80]!r} takes no adapter; {', '.join(list(self.most)[:5])} do")
        if type(rank) is not int or not 0 <= rank <= self.most[name]:
            raise ConfigError(f"rank={{{name!r}: {rank!r}}}: that layer takes 0 to {self.most[name]}")

    def within(self, size: int, beside: TaskAdapter) -> Ranks:
        """The ranks of a file of at most ``size`` bytes: as even as possible, and one more for the last layers.

        Args:
            size: in bytes.
            beside: what the file holds but for factors.

        Raises:
            BudgetError: where not one direction fits.
        """

        def measured(ranks: Ranks) -> int:
            return len(adapter_bytes(replace(beside, layers=self.blank(ranks))))

        each = {name: bits_per_rank(shape, self.bits[name]) / 8 for name, shape in self.shapes.items()}
        ones = dict.fromkeys(self.most, 1)
        left = size - (measured(ones) - sum(each.values()))
        ranks, level = dict.fromkeys(self.most, 0), 0
        while level < max(self.most.values(), default=0):
            level += 1
            for name in reversed(list(self.most)):
                if level <= self.most[name] and each[name] <= left and ranks[name] == level - 1:
                    ranks[name], left = level, left - each[name]
        while any(ranks.values()) and measured(_above_zero(ranks)) > size:
            ranks[max(ranks, key=lambda name: ranks[name])] -= 1  # of the first of the highest ranks
        if not any(ranks.values()):
            least = measured({min(each, key=lambda name: each[name]): 1}) if each else measured({})
            raise BudgetError(
                f"an adapter of {size} bytes is not possible: biases, a new last layer and the header take "
                f"{measured({})}, and with one direction of one layer {least}; biases=False leaves biases out"
            )
        return _above_zero(ranks)

    def blank(self, ranks: Mapping[str, int]) -> dict[str, CodedLowRank]:
        """Adapters of those ranks that are zero: they take as many bytes as any."""
        found = {}
        for name, rank in ranks.items():
            groups, *widths = self.shapes[name]
            left, right = (_zero(self.bits[name], groups * rank, width) for width in widths)
            found[name] = CodedLowRank(left, right, groups)
        return found


def adapter_room(model: nn.Module, bits: int, without: str | None) -> Room:
    """What adapters a coded network takes.

    Args:
        model: coded.
        bits: of factors, where a layer has none yet; those it has say it else.
        without: the name of a layer that gets none, such as a new last one.
    """
    most = {name: room for name, room in rooms(model).items() if name != without}
    factor_codec(bits)  # raises for a width that cannot be
    layers = {name: module_named(model, name) for name in most}
    coded = {name: layer for name, layer in layers.items() if isinstance(layer, CodedLayer)}
    own = {name: layer.adapter_bits if layer.rank else bits for name, layer in coded.items()}
    return Room(most, {name: layer.geometry.matrix_shape for name, layer in coded.items()}, own)


def _above_zero(ranks: Mapping[str, int]) -> Ranks:
    return {name: rank for name, rank in ranks.items() if rank}


def _zero(bits: int, rows: int, columns: int) -> CodedWeight:
    book = factor_codec(bits).codebook({"scale": torch.ones(rows, dtype=torch.float32)}, rows, columns)
    return CodedWeight(torch.zeros(rows, columns, dtype=torch.uint8), book)
