"""Models compiled by torch run as they were written while they are watched."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["uncompiled"]


@contextmanager
def uncompiled() -> Iterator[None]:
    """Within, what ``torch.compile`` made runs uncompiled: hooks are seen, and nothing is compiled again and again.

    torch's compiler is not loaded for it; where it is not loaded yet, nothing is compiled.
    """
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
