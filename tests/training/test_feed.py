"""Parts of a step, for one process and for several."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from corank.calibration import Batches
from corank.errors import ConfigError
from corank.training.feed import Feed
from corank.training.objective import Objective

IMAGES, CLASSES = torch.randn(40, 3, 4, 4), torch.arange(40)


def made(size: int = 0, batch_size: int = 15) -> Feed:
    batches = Batches.of(IMAGES, CLASSES, batch_size)
    return Feed(batches, None, Objective("labels", 1.0, None, False), "flip-shift", size)


def as_process(monkeypatch: pytest.MonkeyPatch, rank: int, processes: int) -> None:
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: processes)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: rank)


@pytest.mark.parametrize("size", [0, 1, 4, 7, 8])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_parts_of_all_processes_make_up_the_augmented_batch(
    size: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = made().parts(3)
    parts: list[Any] = []
    numbers = set()
    for rank in range(processes):
        as_process(monkeypatch, rank, processes)
        own = list(made(size).parts(3))
        numbers.add(len(own))
        parts += own
    assert len(numbers) == 1  # norms that adapt wait for each other
    assert torch.equal(torch.cat([part.inputs for part in parts]), whole.inputs)
    assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)  # pyright: ignore[reportArgumentType]
    assert sum(part.share for part in parts) == pytest.approx(1)
    assert all(len(part.inputs) > 0 and part.share == len(part.inputs) / 15 for part in parts)
    assert [part.start for part in parts] == torch.tensor([0, *(len(p.inputs) for p in parts)]).cumsum(0)[:-1].tolist()


def test_more_processes_than_samples_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made(batch_size=2)
    as_process(monkeypatch, 0, 3)
    with pytest.raises(ConfigError, match="a batch of 2 samples cannot be shared by 3 processes"):
        made(batch_size=2)


def test_of_uneven_parts_a_process_may_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = []
    for rank in range(3):
        as_process(monkeypatch, rank, 3)
        batches = Batches.of(IMAGES, CLASSES, 2)
        parts.append(list(Feed(batches, None, Objective("labels", 1.0, None, False), even=False).parts(0)))
    assert sorted(map(len, parts)) == [0, 1, 1]
    assert sum(part.share for own in parts for part in own) == 1
