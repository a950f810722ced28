"""Memory: what the process took, and what the machine has left."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["Growth", "free_bytes", "give_back", "is_out_of_memory", "peak_memory_bytes", "watched_growth"]

_EVERY_SECONDS = 0.01
_CGROUP = Path("/sys/fs/cgroup")
_PROCESS = Path("/proc/self/statm")
_MACHINE = Path("/proc/meminfo")
_STATUS = Path("/proc/self/status")


def peak_memory_bytes() -> int:
    """The process's peak resident size so far, in bytes."""
    # What getrusage() says of a process on Linux is at least the peak of the process that started it.
    with suppress(OSError, ValueError, StopIteration), _STATUS.open() as lines:
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def give_back() -> None:
    """Returns to the system what nothing needs any more: objects that hold each other, and what was freed but the C
    library keeps for later, where it can be told to (glibc)."""
    gc.collect()
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def free_bytes(device: torch.device | str = "cpu") -> int | None:
    """What could be taken now without another process losing anything; None where the system does not say.

    On the CPU the machine's available memory, or what the process's container leaves where that is less; on CUDA the
    device's, with what torch holds there in reserve.
    """
    device = torch.device(device)
    if device.type == "cuda":
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    known = [size for size in (_available(), _left_in_container()) if size is not None]
    return min(known) if known else None


def _available() -> int | None:
    """Of the machine: free pages, and those that only keep copies of files."""
    try:
        for line in _MACHINE.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except OSError:  # no Linux: free pages alone, where they are told
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _left_in_container() -> int | None:
    """What a limit on the process's control group (versions 2 and 1) leaves; None without one."""
    for folder, limit, used, part in (
        (_CGROUP, "memory.max", "memory.current", "inactive_file "),
        (_CGROUP / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
    ):
        try:
            most = (folder / limit).read_text().strip()
            if not most.isdigit():
                continue
            lines = (folder / "memory.stat").read_text().splitlines()
            copies = sum(int(line.split()[1]) for line in lines if line.startswith(part))  # of files, given up first
            return max(0, int(most) - int((folder / used).read_text()) + copies)
        except OSError:  # another version, or none
            continue
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that there is no memory left, on a GPU or a CPU: torch has a class for the former alone."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


@dataclass
class Growth:
    """How much larger the process was within a block than before it, at most; None where the system does not say."""

    most_bytes: int | None = None


@contextmanager
def watched_growth() -> Iterator[Growth]:
    """Looks at the process's resident size while the block runs; its peak would not tell what is less than before."""
    before, growth = _resident(), Growth()
    if before is None:
        yield growth
        return
    done = threading.Event()

    def look() -> None:
        over = False
        while not over:
            over = done.wait(_EVERY_SECONDS)  # a last look once it is over: a short block may be, before the first
            size = _resident()
            if size is not None:
                growth.most_bytes = max(growth.most_bytes or 0, size - before)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield growth
    finally:
        done.set()
        watcher.join()


def _resident() -> int | None:
    """The process's resident size now."""
    try:
        return int(_PROCESS.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return None
