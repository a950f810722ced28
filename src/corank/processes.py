"""Several processes at work on one model, started by `torchrun` or `accelerate launch`; one process otherwise."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from corank.errors import ConfigError

__all__ = [
    "all_reduce",
    "alone",
    "broadcast",
    "from_main",
    "init_processes",
    "is_main",
    "number_of_processes",
    "own_part",
    "process_here",
    "processes_here",
    "shard",
]

T = TypeVar("T")


def init_processes() -> None:
    """Joins the processes that a launcher started, through Hugging Face accelerate; nothing where it started one.

    Raises:
        ConfigError: when accelerate is missing.
    """
    if dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise ConfigError("several processes need accelerate: pip install 'corank[distributed]'") from error
    PartialState(cpu=not torch.cuda.is_available())
    atexit.register(_leave)


def _leave() -> None:
    """Ends the group's threads while there is an interpreter: one that outlives it may abort the process."""
    if dist.is_initialized():
        dist.destroy_process_group()


_ALONE: ContextVar[bool] = ContextVar("_ALONE", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Within, this process does all of the work itself, as every other then does: to the last bit what one process
    gives, where sums over processes would come out in another order and move a code."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def _shared() -> bool:
    return dist.is_initialized() and not _ALONE.get()


def number_of_processes() -> int:
    """How many processes share the work."""
    return dist.get_world_size() if _shared() else 1


def processes_here() -> int:
    """How many of them share this machine's memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if dist.is_initialized() else 1


def process_here() -> int:
    """The number of this one among them, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0")) if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return not dist.is_initialized() or dist.get_rank() == 0


def shard(items: Sequence[T]) -> list[tuple[int, T]]:
    """This process's part of the items, every n-th, each with its place among all."""
    if not _shared():
        return list(enumerate(items))
    count, rank = dist.get_world_size(), dist.get_rank()
    return [(place, item) for place, item in enumerate(items) if place % count == rank]


def own_part(count: int) -> tuple[int, int]:
    """Start and length of this process's part of ``count`` things in a row; parts differ by at most one in length."""
    processes, rank = number_of_processes(), dist.get_rank() if _shared() else 0
    start, stop = count * rank // processes, count * (rank + 1) // processes
    return start, stop - start


def from_main(decide: Callable[[], T]) -> T:
    """What ``decide`` gives or raises in the main process, in all of them: so that none goes on where another waits.

    It is called in the main process alone, and all must come by.
    """
    if number_of_processes() == 1:
        return decide()
    found: list[tuple[T | None, Exception | None]] = [(None, None)]
    if is_main():
        try:
            found = [(decide(), None)]
        except Exception as error:  # raised below, in every process
            found = [(None, error)]
    dist.broadcast_object_list(found, src=0)
    result, error = found[0]
    if error is not None:
        raise error
    return cast(T, result)


def all_reduce(tensors: Iterable[Tensor]) -> None:
    """Sums each tensor over the processes, in place."""
    if number_of_processes() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def broadcast(tensor: Tensor, source: int) -> None:
    """Makes a contiguous tensor, in place and bit for bit, what it is in the process ``source``."""
    if number_of_processes() > 1 and tensor.numel():
        dist.broadcast(tensor.view(-1).view(torch.uint8), source)  # bytes: not every backend knows every dtype
