"""Coded tables that are looked up: only the rows asked for are decoded, and the memory stays packed."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.layers.coded import CodedLayer
from corank.storage.bits import unpack_at

__all__ = ["CodedEmbedding", "CodedEmbeddingBag", "CodedTable"]


class CodedTable(CodedLayer):
    """Base of the coded tables. Their ``weight`` is the whole table, composed whenever it is asked for, never kept."""

    @property
    def weight(self) -> Tensor:
        """The composed table ``(R, C)``; within :meth:`computing_with` the one that was given."""
        return self._composed() if self._lent is None else self._lent[0]

    def compose(self) -> bool:
        """Nothing: rows are decoded as they are looked up."""
        return True

    def rows(self, index: Tensor) -> Tensor:
        """The rows ``(k, C)`` of numbers ``index`` ``(k,)``, as :attr:`weight` has them."""
        parts = None if self._lent is not None else self._parts(index)
        if parts is None:
            return self.weight[index]
        shape = (1, len(index), self.geometry.matrix_shape[2])
        return self.format.with_shape(shape).state(parts).compose().to(cast(Tensor, self._buffers["_float"]).dtype)

    def _parts(self, index: Tensor) -> dict[str, Tensor] | None:
        """What is stored for those rows, unpacked; None where it cannot be told apart."""
        _, rows, columns = self.geometry.matrix_shape
        if self.codec.checked_tensors or rows == 1:
            return None
        of_one = self.format.with_shape((1, 1, columns)).tensors()
        found: dict[str, Tensor] = {}
        for name, spec in self.slots().items():
            each = of_one[name].count
            if name == "left_codes":  # of all rows in each direction
                places = torch.arange(self.rank, device=index.device)[:, None] * rows + index
            elif spec.count == rows * each:
                places = index[:, None] * each + torch.arange(each, device=index.device)
            elif spec.count == each:
                places = torch.arange(each, device=index.device)
            else:
                return None
            stored = cast(Tensor, self._buffers[name])
            found[name] = (stored[places] if spec.scale else unpack_at(stored, spec.bits, places)).reshape(-1)
        return found

    def _looked_up(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The rows that are asked for, and the ids as numbers of those."""
        if torch.compiler.is_compiling():  # how many differ only the data tell
            return self.rows(ids.flatten()), torch.arange(ids.numel(), device=ids.device).reshape(ids.shape)
        wanted, places = ids.unique(return_inverse=True)
        if len(wanted) and (int(wanted[0]) < 0 or int(wanted[-1]) >= self.geometry.matrix_shape[1]):
            raise IndexError(
                f"ids from {int(wanted[0])} to {int(wanted[-1])}: the table has {self.geometry.shape[0]} rows"
            )
        return self.rows(wanted), places


class CodedEmbedding(CodedTable, nn.Embedding):  # pyright: ignore[reportIncompatibleVariableOverride]
    """An ``Embedding`` with a coded weight."""

    def forward(self, input: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The rows of numbers ``input`` ``(...)``: ``(..., C)``."""
        rows, places = self._looked_up(input)
        return F.embedding(places, rows, None, self.max_norm, self.norm_type)


class CodedEmbeddingBag(CodedTable, nn.EmbeddingBag):  # pyright: ignore[reportIncompatibleVariableOverride]
    """An ``EmbeddingBag`` with a coded weight."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """The sums, means or maxima of rows, as torch's module gives them."""
        padding = self.padding_idx
        if padding is not None:  # counts nowhere; a row behind the others stands for it
            real = input != (padding if padding >= 0 else padding + self.num_embeddings)
            rows, places = self._looked_up(torch.where(real, input, 0))
            rows = torch.cat([rows, rows[:1]])
            places, padding = torch.where(real, places, len(rows) - 1), len(rows) - 1
        else:
            rows, places = self._looked_up(input)
        return F.embedding_bag(
            places, rows, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.mode, self.sparse,
            per_sample_weights, self.include_last_offset, padding,
        )  # fmt: skip
