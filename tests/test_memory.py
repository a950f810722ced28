"""Memory that is free, and memory that a block takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import corank.memory as memory
from corank.memory import free_bytes, give_back, is_out_of_memory, peak_memory_bytes, watched_growth

MEGABYTE = 1 << 20


def test_something_is_free_and_something_is_taken() -> None:
    free = free_bytes()
    assert free is None or free > MEGABYTE
    assert peak_memory_bytes() > MEGABYTE


def test_the_peak_is_this_process_own() -> None:
    """Not that of a larger one which started it."""
    inner = "from corank.memory import peak_memory_bytes; print(peak_memory_bytes())"
    large = f"import subprocess, sys; held = bytearray(900 << 20); subprocess.run([sys.executable, '-c', {inner!r}])"
    found = subprocess.run([sys.executable, "-c", large], capture_output=True, text=True, check=True, timeout=300)
    assert MEGABYTE < int(found.stdout) < 900 * MEGABYTE


def of_container(folder: Path, limit: str, used: int, copies: int, version: int) -> None:
    names = (
        ("memory.max", "memory.current", "inactive_file")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    folder.mkdir(exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {copies}\n{names[2]}_other 77\n")


@pytest.mark.parametrize(("version", "part"), [(2, "."), (1, "memory")])
def test_a_container_may_leave_less_than_the_machine(
    version: int, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    (tmp_path / "meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable: {8 * 1024} kB\n")
    monkeypatch.setattr(memory, "_MACHINE", tmp_path / "meminfo")
    assert free_bytes() == 8 * MEGABYTE
    of_container(tmp_path / part, str(3 * MEGABYTE), 2 * MEGABYTE, MEGABYTE // 2, version)
    assert free_bytes() == 3 * MEGABYTE // 2
    of_container(tmp_path / part, "max" if version == 2 else str(2**62), 2 * MEGABYTE, 0, version)
    assert free_bytes() == 8 * MEGABYTE


def test_growth_is_seen_below_an_earlier_peak() -> None:
    if memory._resident() is None:
        pytest.skip("this system does not tell a process's size")
    give_back()  # what other tests left is not given back within the block
    large = torch.ones(256 * MEGABYTE // 4)
    del large
    with watched_growth() as growth:
        one = torch.ones(128 * MEGABYTE // 4)
        assert float(one.sum()) > 0
    assert growth.most_bytes is not None and growth.most_bytes > 64 * MEGABYTE


def test_a_block_too_short_to_be_looked_at_is_seen_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    if memory._resident() is None:
        pytest.skip("this system does not tell a process's size")
    monkeypatch.setattr(memory, "_EVERY_SECONDS", 60.0)
    give_back()
    with watched_growth() as growth:
        one = torch.ones(128 * MEGABYTE // 4)
    assert growth.most_bytes is not None and growth.most_bytes > 64 * MEGABYTE
    assert float(one[0]) == 1


def test_growth_is_unknown_where_the_system_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_PROCESS", tmp_path / "nothing")
    with watched_growth() as growth:
        pass
    assert growth.most_bytes is None


def test_errors_that_say_there_is_no_memory() -> None:
    on_cpu = RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: ")
    for error in (torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), on_cpu):
        assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shapes")) and not is_out_of_memory(ValueError("can't allocate memory"))
