"""Reading ahead: the same parts in the same order, from any number of threads."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from corank.calibration.batches import Batches
from corank.training.ahead import reading_ahead
from corank.training.feed import Feed
from corank.training.objective import Objective

IMAGES, LABELS = torch.randn(44, 3, 6, 6), torch.arange(44)


class Counted:
    """Samples that note who read them, and fail at one."""

    def __init__(self, fails: int | None = None) -> None:
        self.labels, self.fails = (LABELS,), fails
        self.read: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(IMAGES)

    def rows(self, indices: Tensor) -> tuple[Any, Tensor]:
        self.read += [(index, threading.current_thread().name) for index in indices.tolist()]
        if self.fails in indices.tolist():
            raise ValueError(f"sample {self.fails}")
        return IMAGES[indices], LABELS[indices]


def feed(source: Counted, workers: int, size: int = 0) -> Feed:
    batches = Batches(source, batch_size=8, seed=3)
    source.read.clear()
    return Feed(batches, None, Objective("labels", 1.0, None, False), "flip-shift", size, workers=workers)


def taken(workers: int, steps: range, size: int = 0) -> tuple[list[Any], list[tuple[int, str]]]:
    source = Counted()
    with reading_ahead(feed(source, workers, size), steps) as parts:
        found = [part for step in steps for part in parts(step)]
    return found, source.read


@pytest.mark.parametrize("size", [0, 3])
@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_parts_are_those_without_threads(workers: int, size: int) -> None:
    plain = feed(Counted(), 0, size)
    expected = [part for step in range(2, 13) for part in plain.parts(step)]
    found, read = taken(workers, range(2, 13), size)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.inputs, other.inputs) and torch.equal(one.labels, other.labels)
        assert (one.start, one.share) == (other.start, other.share)
    assert all(name.startswith("corank-ahead") == (workers > 0) for _, name in read)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_each_sample_is_read_once_an_epoch(workers: int) -> None:
    source = Counted()
    made = feed(source, workers)
    steps = made.batches.steps_an_epoch  # pyright: ignore
    with reading_ahead(made, range(steps)) as parts:
        for step in range(steps):
            list(parts(step))
    seen = [index for index, _ in source.read]
    assert len(seen) == len(set(seen)) == 40  # what is left over is dropped


def test_no_more_is_held_than_one_beside_the_threads() -> None:
    source = Counted()
    with reading_ahead(feed(source, 2), range(100)) as parts:
        list(parts(0))
    assert len(source.read) <= 4 * 8


def test_an_error_is_raised_where_its_part_is_asked_for() -> None:
    source = Counted()
    made = feed(source, 1)
    source.fails = int(made.batches.draw(3)[5])  # pyright: ignore
    before = threading.active_count()
    with reading_ahead(made, range(5)) as parts:
        for step in range(3):
            list(parts(step))
        with pytest.raises(ValueError, match=f"sample {source.fails}"):
            list(parts(3))
    assert threading.active_count() == before


def test_a_step_may_be_asked_for_again() -> None:
    with reading_ahead(feed(Counted(), 1), range(4)) as parts:
        first = [part.labels.tolist() for _ in range(3) for part in parts(0) if part.labels is not None]
        (last,) = parts(1)
    assert first[0] == first[1] == first[2] and last.labels is not None and last.labels.tolist() != first[0]
