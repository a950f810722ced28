"""What torch keeps for each thread by itself, carried from the thread that asks for work to the one that does it."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from contextlib import ExitStack

import torch

__all__ = ["as_here"]


def as_here(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """``work`` made ready for another thread, where it will see this thread's autocast, context variables, stream and
    number of threads.

    Args:
        work: to be done on ``device``; without gradients, whatever this thread's mode.
        device: whose autocast and stream are meant, beside the CPU's.
    """
    context = contextvars.copy_context()
    kinds = dict.fromkeys(("cpu", device.type))
    autocasts = [
        (kind, torch.get_autocast_dtype(kind))
        for kind in kinds
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    ]
    stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
    threads = torch.get_num_threads()

    def done() -> None:
        if torch.get_num_threads() != threads:  # a new thread begins with what any thread has set last
            torch.set_num_threads(threads)
        with ExitStack() as stack:
            if stream is not None:
                stack.enter_context(torch.cuda.stream(stream))
            for kind, dtype in autocasts:  # weights change between the layers: none may be kept in its other dtype
                stack.enter_context(torch.autocast(kind, dtype, cache_enabled=False))
            stack.enter_context(torch.no_grad())
            work()

    return lambda: context.run(done)
