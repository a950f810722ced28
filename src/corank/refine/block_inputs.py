"""What a block is fed in two networks, of all batches together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from corank.calibration import LayerwisePasses
from corank.padding import masks_of, real_positions

__all__ = ["BlockInputs", "block_inputs"]


@dataclass(frozen=True)
class BlockInputs:
    """Inputs of a block, row by row.

    Attributes:
        given: of the coded network, ``(N, ...)``.
        expected: of the float network for the same rows or, where nothing tells which these are, ``given`` again.
        real: bool, the first axes of ``given``: what is no padding; None: all.
    """

    given: Tensor
    expected: Tensor
    real: Tensor | None

    def lost(self, output: Tensor, target: Tensor, rows: Tensor | slice) -> Tensor:
        """The difference of two outputs of those rows, zero at padding."""
        if self.real is None or output.shape[: self.real.dim()] != self.real[rows].shape:
            return output - target
        real = self.real[rows].to(output.device)
        return torch.where(real.reshape(*real.shape, *[1] * (output.dim() - real.dim())), output - target, 0.0)


def block_inputs(
    name: str, real: LayerwisePasses, ideal: LayerwisePasses, batches: Sequence[Any]
) -> BlockInputs | None:
    """What the block is fed on all batches; None where none of them comes by it in the coded network.

    Where a router sends other rows to it in the one network than in the other, the block is learned on the coded
    network's rows alone. Of batches of several lengths those of the most frequent one are taken.
    """
    found: list[tuple[Tensor, Tensor, Tensor | None]] = []
    for number, batch in enumerate(batches):
        given, expected = real.inputs(number, name), ideal.inputs(number, name)
        if given is None:
            continue
        alike = expected is not None and expected.shape == given.shape
        found.append((given, expected if alike and expected is not None else given, _real(batch, given)))
    if not found:
        return None
    usual = Counter(given.shape[1:] for given, _, _ in found).most_common(1)[0][0]
    found = [one for one in found if one[0].shape[1:] == usual]
    padded = any(mask is not None for _, _, mask in found)
    masks = [torch.ones(given.shape[:-1], dtype=torch.bool) if mask is None else mask for given, _, mask in found]
    given, expected = torch.cat([one[0] for one in found]), torch.cat([one[1] for one in found])
    return BlockInputs(given, expected, torch.cat(masks).to(given.device) if padded else None)


def _real(batch: Any, given: Tensor) -> Tensor | None:
    return real_positions(masks_of(batch), given.shape)
