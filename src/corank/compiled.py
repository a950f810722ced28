"""Models compiled by torch run as they were written while they are watched."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

__all__ = ["uncompiled"]


_entries = threading.Lock()
_inside = 0
_held = ExitStack()  # what the first to enter changed and the last to leave restores


@contextmanager
def uncompiled() -> Iterator[None]:
    """Within, what ``torch.compile`` made runs uncompiled: hooks are seen, and nothing is compiled again and again.

    torch's compiler is not loaded for it; where it is not loaded yet, nothing is compiled. Its stance is one for the
    whole process: where several threads are within, it is restored when the last of them leaves.
    """
    if "torch._dynamo" not in sys.modules:
        yield
        return
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _inside
    with _entries:
        if _inside == 0:
            _held.enter_context(torch.compiler.set_stance("force_eager"))
        _inside += 1


def _leave() -> None:
    global _inside
    with _entries:
        _inside -= 1
        if _inside == 0:
            _held.close()
