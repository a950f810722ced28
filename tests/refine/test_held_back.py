"""Which samples a refinement is judged by: some, never trained on, the same for a seed."""

from __future__ import annotations

import pytest
import torch

from corank.calibration import Samples
from corank.refine.held_back import chosen, held_back, others


def numbered(count: int, batch: int = 32) -> Samples:
    return Samples.of(torch.arange(count, dtype=torch.float32)[:, None], count, batch)


@pytest.mark.parametrize(
    ("count", "share", "held"),
    [
        *((15, 0.125, 0), (16, 0.125, 4), (200, 0.125, 50), (400, 0.125, 64)),
        *((1600, 0.125, 200), (8000, 0.125, 512), (1600, 0.0, 0), (1600, 0.01, 64)),
    ],
)
def test_a_share_within_bounds(count: int, share: float, held: int) -> None:
    assert len(held_back(numbered(count), share, 0)) == held


def test_every_sample_is_on_one_side() -> None:
    samples = numbered(100, 7)
    held = held_back(samples, 0.125, 3)
    rest = others(samples, held)
    sides = [torch.cat(chosen(samples, places).batches)[:, 0] for places in (held, rest)]
    assert torch.equal(sides[0], held.float()) and torch.equal(sides[1], rest.float())
    assert torch.equal(torch.cat(sides).sort().values, torch.arange(100.0))
    assert torch.equal(held, held_back(samples, 0.125, 3))
    assert not torch.equal(held, held_back(samples, 0.125, 4))


def test_batches_that_cannot_be_stacked_go_whole() -> None:
    batches = [torch.full((4, 2 + number), float(number)) for number in range(9)]
    samples = Samples.of(batches, 36)
    held = held_back(samples, 0.125, 0)
    assert len(held) == 2 and sum(map(len, chosen(samples, held).batches)) == 8
    assert [int(batch[0, 0]) for batch in chosen(samples, held).batches] == held.tolist()
    assert len(others(samples, held)) == 7


def test_sequences_count_by_their_tokens() -> None:
    samples = Samples.of(torch.zeros(128, 256, dtype=torch.int64), 128)
    assert len(held_back(samples, 0.125, 0)) == 16
    assert len(held_back(Samples.of(torch.zeros(8, 256, dtype=torch.int64), 8), 0.125, 0)) == 2
