"""The process's memory."""

from __future__ import annotations

import resource
import sys

__all__ = ["peak_memory_bytes"]


def peak_memory_bytes() -> int:
    """The process's peak resident size so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
