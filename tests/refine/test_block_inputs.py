"""What a block is fed: pairs where there are some, padding left out of its error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from corank.calibration import LayerwisePasses
from corank.refine.block_inputs import BlockInputs, block_inputs


class Fed:
    """Stands for passes that wait before one layer."""

    def __init__(self, inputs: Sequence[Tensor | None]) -> None:
        self._inputs = inputs

    def inputs(self, batch: int, _name: str) -> Tensor | None:
        return self._inputs[batch]


def found(given: Sequence[Tensor | None], expected: Sequence[Tensor | None], batches: Any = None) -> BlockInputs | None:
    real, ideal = (cast(LayerwisePasses, Fed(side)) for side in (given, expected))
    return block_inputs("it", real, ideal, batches or [None] * len(given))


def test_pairs_and_rows_without_a_pair() -> None:
    parts = [torch.randn(count, 4) for count in (3, 2, 5, 1)]
    inputs = found([parts[0], parts[1], parts[3], None], [parts[0] + 1, parts[2], None, parts[2]])
    assert inputs is not None and inputs.real is None
    assert torch.equal(inputs.given, torch.cat([parts[0], parts[1], parts[3]]))
    assert torch.equal(inputs.expected, torch.cat([parts[0] + 1, parts[1], parts[3]]))
    assert found([None, None], [parts[0], None]) is None


def test_of_several_lengths_the_most_frequent_counts() -> None:
    parts = [torch.randn(2, length, 4) for length in (5, 6, 6)]
    inputs = found(parts, parts)
    assert inputs is not None and torch.equal(inputs.given, torch.cat(parts[1:]))


def test_padding_has_no_error() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    parts = [torch.randn(2, 3, 4), torch.randn(2, 3, 4)]
    inputs = found(parts, parts, [{"attention_mask": mask}, {"attention_mask": torch.ones(2, 3)}])
    assert inputs is not None and inputs.real is not None
    assert inputs.real.tolist() == [*mask.bool().tolist(), [True] * 3, [True] * 3]
    output, target = torch.randn(4, 3, 7), torch.randn(4, 3, 7)
    lost = inputs.lost(output, target, slice(0, 4))
    assert torch.equal(lost, torch.where(inputs.real[..., None], output - target, 0.0))
    assert torch.equal(inputs.lost(output[[1, 2]], target[[1, 2]], torch.tensor([1, 2])), lost[[1, 2]])
    pooled = torch.randn(4, 7)
    assert torch.equal(inputs.lost(pooled, 0 * pooled, slice(0, 4)), pooled)
