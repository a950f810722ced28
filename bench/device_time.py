"""Where the time goes on a device: seconds of each phase on the CPU and on a GPU, and how often the GPU is waited for.

    python bench/device_time.py --shared DIR [--networks 20 56] [--cases rate best] [--threads 3] [--top 14]

For every network and case the same call runs on both devices, after one short run that warms the device up. Printed
are seconds in all, seconds of each phase (as `progress=` names them), how far the results' outputs are from each
other, the functions of corank that took longest (their own time and that of what they call in torch), and, for one
network, the operators that a device was asked for and the waits for it.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import corank

sys.path.insert(0, str(Path(__file__).parent))
from cifar_task import CifarTask

CASES: dict[str, dict[str, Any]] = {
    "rate": {"rate": 2.0},
    "bits": {"bits": 2, "budget": 0.4, "search": "greedy"},
    "cora": {"bits": 2, "budget": 0.4},
    "nearest": {"preset": "nearest", "bits": 4, "budget": 0},
    "best": {"preset": "best", "rate": 2.0},
    "short best": {"preset": "best", "rate": 2.0, "refinement": corank.Refinement(iterations=50)},
}


class Phases:
    """Seconds between the calls of ``progress=``, by what was being done."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.perf_counter()
        self.seconds[what] = self.seconds.get(what, 0.0) + now - self._last
        self._last = now

    def __str__(self) -> str:
        return ", ".join(f"{what} {seconds:.1f}" for what, seconds in self.seconds.items())


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def timed(model: nn.Module, data: Any, device: str, case: dict[str, Any]) -> tuple[float, Phases, nn.Module]:
    """One run's seconds, phases and result."""
    phases = Phases()
    started = time.perf_counter()
    small = corank.quantize(model, data, device=device, progress=phases, **case)
    synchronize(device)
    return time.perf_counter() - started, phases, small


@contextmanager
def measured_functions(top: int):
    """Prints corank's functions by the time they took in the main thread, torch's calls inside them included."""
    profile = cProfile.Profile(builtins=True)
    profile.enable()
    yield
    profile.disable()
    statistics = pstats.Stats(profile)
    rows = []
    for (file, line, name), (_, calls, own, whole, _) in statistics.stats.items():  # pyright: ignore
        place = f"{Path(file).parent.name}/{Path(file).name}:{line}" if os.sep in file else ""
        rows.append((own, whole, calls, f"{name} {place}"))
    for title, key in (("own time", 0), ("with callees", 1)):
        print(f"    {title}:")
        shown = [
            row for row in sorted(rows, key=lambda row: -row[key]) if key == 0 or "corank" in row[3] or "/" in row[3]
        ]
        for own, whole, calls, name in shown[:top]:
            print(f"      {own:7.2f} own {whole:7.2f} whole {calls:9d} calls  {name}")


def operators(call: Callable[[], object], top: int) -> None:
    """Prints what was asked of the device, and the waits for it."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        call()
    events = found.key_averages()
    waits = [
        one
        for one in events
        if any(
            word in one.key
            for word in ("Synchronize", "_local_scalar", "Memcpy", "aten::item", "aten::equal", "LaunchKernel")
        )
    ]
    for title, rows in (
        ("waits, copies and launches", waits),
        ("operators", sorted(events, key=lambda one: -one.self_cpu_time_total)[:top]),
    ):
        print(f"    {title}:")
        for one in sorted(rows, key=lambda row: -row.self_cpu_time_total):
            print(
                f"      {one.count:9d} x {one.key[:58]:<58} host {one.self_cpu_time_total / 1e6:7.2f} s,"
                f" device {one.self_device_time_total / 1e6:7.2f} s"
            )


def sizes(repeat: int = 20) -> None:
    """Prints milliseconds of one step of each of the loops over columns, and of decompositions, on both devices."""
    print("one layer's coding by its size, ms on CPU and GPU")
    from corank.codecs import RateUniform
    from corank.rounding import AdaRound, Gptq
    from corank.statistics import Gram

    for rows, columns in ((16, 144), (64, 576), (512, 2048)):
        torch.manual_seed(0)
        weight, inputs = torch.randn(rows, columns), torch.randn(1, 2 * columns, columns)
        line = f"  {rows:5d} x {columns:5d}:"
        for device in ("cpu", "cuda"):
            one, gram = weight.to(device), Gram(1, columns, device)
            gram.update(inputs.to(device), 1)
            codec = RateUniform.of(2.0)
            book = codec.fit(one)
            jobs: dict[str, Callable[[], object]] = {
                "fit": lambda one=one, codec=codec: codec.fit(one),
                "gptq": lambda one=one, book=book, gram=gram: Gptq()(one, book, {Gram: gram}),
                "sweeps": lambda one=one, book=book, gram=gram: Gptq(sweeps=3)(one, book, {Gram: gram}),
                "adaround 50": lambda one=one, book=book, gram=gram: AdaRound(50)(one, book, {Gram: gram}),
                "eigh": lambda gram=gram: torch.linalg.eigh(gram.matrix.double()),
                "solve": lambda one=one, gram=gram: torch.linalg.solve(gram.matrix, one[None], left=False),
            }
            line += f"\n    {device:>5}"
            for name, job in jobs.items():
                if columns > 1024 and device == "cpu" and name in ("eigh", "sweeps"):
                    line += f"  {name} -"
                    continue
                job()
                synchronize(device)
                started, done = time.perf_counter(), 0
                while done < repeat and time.perf_counter() - started < 0.2:
                    job()
                    synchronize(device)
                    done += 1
                line += f"  {name} {(time.perf_counter() - started) / done * 1000:.2f}"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--networks", type=int, nargs="+", default=[20, 56])
    parser.add_argument("--cases", nargs="+", choices=tuple(CASES), default=["rate", "short best"])
    parser.add_argument("--profiled", nargs="*", choices=tuple(CASES), default=["rate"])
    parser.add_argument("--devices", nargs="+", default=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=3)
    parser.add_argument("--top", type=int, default=14)
    parser.add_argument("--sizes", action="store_true", help="also time the coding of layers by their size")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cuda = torch.cuda.is_available()
    print(
        f"torch {torch.__version__}, {options.threads} threads, {torch.cuda.get_device_name() if cuda else 'no CUDA'}"
    )
    devices = [device for device in options.devices if device != "cuda" or cuda]
    if options.sizes and cuda:
        sizes()
    for number, network in enumerate(options.networks):
        task = CifarTask.of(options.shared, network)
        for device in devices:
            timed(task.model, task.train.tensor()[:64], device, {"rate": 2.0})  # starts libraries and allocators
        for name in options.cases:
            beside(task, network, name, devices)
            if name in options.profiled and devices[-1] == "cuda":
                print(f"  with cProfile (slower), {threading.active_count()} threads alive", flush=True)
                with measured_functions(options.top):
                    timed(task.model, task.train, devices[-1], CASES[name])
        if not number and devices[-1] == "cuda":
            print("  with torch.profiler (slower), 320 samples", flush=True)
            operators(partial(timed, task.model, task.train, "cuda", {"rate": 2.0, "samples": 320}), options.top)


def beside(task: CifarTask, network: int, name: str, devices: list[str]) -> None:
    """Runs one case on every device, and prints seconds, phases and how far the outputs are apart."""
    images, outputs = task.train.tensor()[:64], []
    for device in devices:
        seconds, phases, small = timed(task.model, task.train, device, CASES[name])
        with torch.no_grad():
            outputs.append(small(images))
        print(f"ResNet-{network} {name!r} on {device}: {seconds:.1f} s ({phases})", flush=True)
    if len(outputs) == 2:
        print(f"  outputs apart by up to {float((outputs[0] - outputs[1]).abs().max()):.3g}")


if __name__ == "__main__":
    main()
