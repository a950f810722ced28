"""Work done side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from corank.verbs import jobs
from corank.verbs.jobs import in_parallel

GIGABYTE = 1 << 30


@pytest.fixture
def four_threads() -> Iterator[None]:
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "free_bytes", lambda: 100 * GIGABYTE)


def test_every_item_once(four_threads: None) -> None:
    assert sorted(in_parallel(lambda item: -item, range(10), 3)) == [(item, -item) for item in range(10)]
    assert list(in_parallel(lambda item: item, [], 3)) == []
    assert torch.get_num_threads() == 4


def test_workers_keep_their_threads_whatever_others_set(four_threads: None) -> None:
    set_by_another, begun = threading.Event(), threading.Barrier(2, timeout=600)

    def work(item: int) -> int:
        if item == 0:
            return torch.get_num_threads()
        begun.wait()
        if item == 1:
            other = threading.Thread(target=lambda: torch.set_num_threads(1))
            other.start()
            other.join()
            set_by_another.set()
        assert set_by_another.wait(20)
        return torch.get_num_threads()

    assert dict(in_parallel(work, [0, 1, 2], 2)) == {0: 4, 1: 2, 2: 2}
    assert torch.get_num_threads() == 4


def test_an_error_ends_it_and_gives_the_threads_back(four_threads: None) -> None:
    seen: list[int] = []

    def work(item: int) -> None:
        seen.append(item)
        if item == 1:
            raise ValueError("no")
        time.sleep(1e-3)  # so that the error is there before a busy machine has done them all

    with pytest.raises(ValueError, match="no"):
        list(in_parallel(work, range(1000), 2))
    assert len(seen) < 1000 and torch.get_num_threads() == 4


@pytest.mark.parametrize(
    ("one", "free", "expected"),
    [(GIGABYTE, 8 * GIGABYTE, 6), (GIGABYTE, GIGABYTE, 1), (0, GIGABYTE, 12), (None, GIGABYTE, 1), (1, None, 1)],
)
def test_room(one: int | None, free: int | None, expected: int) -> None:
    assert jobs._room(one, free) == expected


def test_what_the_first_takes_counts_though_more_was_taken_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "free_bytes", lambda: GIGABYTE // 2)
    before = torch.ones(GIGABYTE // 2)  # 2 GB, given back before the first item
    del before
    inside, most = [0], [0]
    lock = threading.Lock()

    def work(item: int) -> None:
        taken = torch.ones(GIGABYTE // 16)  # 256 MB
        assert float(taken[-1]) == 1
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        threading.Event().wait(0.05)
        with lock:
            inside[0] -= 1

    list(in_parallel(work, range(6), 6))
    assert most[0] == 1
