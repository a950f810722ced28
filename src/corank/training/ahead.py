"""Reading ahead: threads read and decode the parts of the steps to come while one computes.

A part is a function of its place alone, and is taken in the order in which it is asked for: what trains is the same, to
the last bit, with any number of threads, and with none. Augmentation stays with the step.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from corank.training.feed import Feed, Part, Place, Samples

__all__ = ["reading_ahead"]


@contextmanager
def reading_ahead(feed: Feed, steps: range) -> Iterator[Callable[[int], Iterator[Part]]]:
    """Within, what is given does what :meth:`Feed.parts` does, for ``steps`` in their order.

    An error in reading is raised where the part that it belongs to is asked for. One part more than there are threads
    is held at most.
    """
    if feed.workers == 0:
        yield feed.parts
        return
    pool = ThreadPoolExecutor(feed.workers, thread_name_prefix="corank-ahead")
    try:
        ahead = _Ahead(feed, steps, pool)
        yield lambda step: feed.parts(step, ahead.take)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Ahead:
    def __init__(self, feed: Feed, steps: range, pool: ThreadPoolExecutor) -> None:
        self._feed, self._pool = feed, pool
        self._coming = (place for step in steps for place in feed.places(step))
        self._read: deque[tuple[Place, Future[Samples]]] = deque()

    def take(self, place: Place) -> Samples:
        """The part at a place, once it is read."""
        self._fill()
        if not self._read or self._read[0][0] != place:  # one that is asked for again
            return self._feed.read(place)
        _, found = self._read.popleft()
        self._fill()
        return found.result()

    def _fill(self) -> None:
        while len(self._read) <= self._feed.workers and (place := next(self._coming, None)) is not None:
            context = contextvars.copy_context()
            self._read.append((place, self._pool.submit(context.run, self._feed.read, place)))
