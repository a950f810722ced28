"""Several pieces of work at the same time, as many as there is memory for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

from corank.memory import free_bytes, watched_growth

__all__ = ["in_parallel"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_LEAST_BYTES = 1 << 26  # that a piece of work is taken to need
_SHARE = 0.75  # of what is free


def in_parallel(work: Callable[[Item], Result], items: Sequence[Item], jobs: int) -> Iterator[tuple[Item, Result]]:
    """Items with their results, as they are done; the first one alone, to see what memory one takes.

    Args:
        work: done in threads; torch's threads are shared out among them.
        items: each worked on once; no further one is begun after an error, or when the iteration is left.
        jobs: at the same time, at most.
    """
    if not items:
        return
    with watched_growth() as growth:
        first = work(items[0])
    yield items[0], first
    workers = min(jobs, _room(growth.most_bytes, free_bytes()))
    threads = torch.get_num_threads()
    each = max(1, threads // workers)
    torch.set_num_threads(each)
    stop = threading.Event()

    def one(item: Item) -> tuple[Result] | None:
        return None if stop.is_set() else (work(item),)

    def begin() -> None:
        # Said in each worker, and asked for, which settles it: a new thread begins with what any thread set last.
        torch.set_num_threads(each)
        torch.get_num_threads()

    try:
        with ThreadPoolExecutor(workers, initializer=begin) as pool:
            open_: dict[Future[tuple[Result] | None], Item] = {pool.submit(one, item): item for item in items[1:]}
            try:
                while open_:
                    for future in wait(open_, return_when=FIRST_COMPLETED).done:
                        done = future.result()
                        item = open_.pop(future)
                        if done is not None:
                            yield item, done[0]
            finally:
                stop.set()
                for future in open_:
                    future.cancel()
    finally:
        torch.set_num_threads(threads)


def _room(one: int | None, free: int | None) -> int:
    """How many pieces that take ``one`` bytes each ``free`` ones hold, leaving a quarter of them; one where the system
    does not say."""
    if one is None or free is None:
        return 1
    return max(1, int(_SHARE * free) // max(one, _LEAST_BYTES))
