"""Mutated artifacts, read one after another: each must load to a sound model, or be refused with ArtifactError.

    python bench/fuzz.py [--count 100000] [--seed 0] [--of 'trellis*'] [--state fuzz.json] [--faults DIR]
    python bench/fuzz.py --only 1234                # one of them again, with its traceback

File number n of a seed is always the same, and what was done is kept in the state file: the same command goes on
from there. The files are read in a process of their own, which may take no more than --megabytes beyond what it takes
for sound files, and --seconds for one; where it dies, the file it died of is noted and the next process goes on. While
a file is read, an audit hook refuses whatever is not reading or writing that file: other paths, code, processes,
sockets. Faulty files are kept in --faults.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from corank.errors import CorankError
from corank.evaluation import peak_memory_bytes
from corank.storage.artifact import serialized

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from fuzzing.artifacts import LATER, SAMPLES, sample_inputs, sample_model
from fuzzing.files import check_file
from fuzzing.mutations import mutate

CODERS = ("fixed", "deflate", "huffman", "ham", "sham", "ans", "rans", "adaptive", "carried")
EVERY = 500  # files between two notes of the state
GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
FORBIDDEN = (
    "exec", "compile", "import", "pickle.", "marshal.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn",
    "subprocess.", "socket.", "ctypes.", "urllib.", "webbrowser.", "shutil.", "os.mkdir", "os.rmdir", "os.chown",
    "os.link", "os.symlink", "os.putenv",
)  # fmt: skip
PATHS = ("open", "os.remove", "os.rename", "os.chmod", "os.listdir", "os.scandir", "os.truncate")


@dataclass(frozen=True)
class Source:
    """A sound artifact and what reads it."""

    name: str
    data: bytes
    network: nn.Module
    inputs: Tensor


class Timeout(Exception):
    """One file took too long."""


def sources(wanted: str = "*") -> list[Source]:
    """Every sample by every coder that makes its file another one, and the files of older formats."""
    found: list[Source] = []
    for name, sample in {**SAMPLES, **LATER}.items():
        model, network = sample_model(sample), sample.network()
        files = {serialized(model, coder): coder for coder in reversed(CODERS)}
        older = {path.read_bytes(): f"{path.parent.name} {path.stem}" for path in GOLDEN.glob(f"v*/{name}.*")}
        inputs = sample_inputs(sample)
        found += [Source(f"{name}, {kind}", data, network, inputs) for data, kind in {**files, **older}.items()]
    return sorted((one for one in found if fnmatchcase(one.name, wanted)), key=lambda source: source.name)


def mutation(number: int, seed: int, known: list[Source]) -> tuple[Source, str, bytes]:
    """File ``number``: what it was made of, the name of the mutation, its bytes."""
    draw = random.Random(f"{seed}:{number}")
    source = known[number % len(known)]
    name, data = mutate(source.data, draw, [other.data for other in known])
    return source, name, data


def read_some(arguments: argparse.Namespace, known: list[Source], state: dict[str, Any], folder: Path) -> None:
    """Reads file after file, noting each number before it is read, until all are done."""
    path, watch, marker = folder / "mutated.safetensors", Watch(folder), os.open(arguments.marker, os.O_WRONLY)
    for source in known:  # what is loaded late is loaded now
        path.write_bytes(source.data)
        assert check_file(path, source.network, source.inputs) == "loaded"
    resting = peak_memory_bytes()
    allowed = _address_space() + arguments.megabytes * 1_000_000
    resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
    signal.signal(signal.SIGALRM, _too_long)
    for number in range(state["next"], arguments.count):
        os.pwrite(marker, number.to_bytes(8, "little"), 0)
        source, name, data = mutation(number, arguments.seed, known)
        path.write_bytes(data)
        signal.setitimer(signal.ITIMER_REAL, arguments.seconds)
        try:
            with watch.strict():
                outcome = check_file(path, source.network, source.inputs)
            if "alloc" in outcome:
                raise MemoryError(outcome)
        except CorankError as error:
            outcome = f"{type(error).__name__}: {str(error)[:60]}"
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            outcome = "FAULT"
            _keep(arguments, state, number, f"{name} of {source.name}", error, data)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        kind = "loaded" if outcome == "loaded" else "fault" if outcome == "FAULT" else "refused"
        state["by mutation"].setdefault(name, Counter())[kind] += 1
        state["outcomes"][outcome] = state["outcomes"].get(outcome, 0) + 1
        state["next"] = number + 1
        state["peak bytes"] = max(state["peak bytes"], peak_memory_bytes())
        state["peak bytes beyond rest"] = max(state["peak bytes beyond rest"], peak_memory_bytes() - resting)
        if number % EVERY == EVERY - 1:
            note(arguments.state, state)
    note(arguments.state, state)


class Watch:
    """An audit hook that, while it is strict, refuses what reading a file does not need."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._on = os.fspath(folder), False
        sys.addaudithook(self._see)

    @contextmanager
    def strict(self) -> Iterator[None]:
        """Refuses until the block ends."""
        self._on = True
        try:
            yield
        finally:
            self._on = False

    def _see(self, event: str, values: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event in PATHS:
            given = values[0]
            if isinstance(given, (str, bytes, os.PathLike)) and not os.fsdecode(given).startswith(self._folder):
                self._on = False
                raise AssertionError(f"{event} of {given!r}")
        elif event.startswith(FORBIDDEN) and event != "import":
            self._on = False
            raise AssertionError(f"{event} {str(values)[:200]}")


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _too_long(_signal: int, _frame: object) -> None:
    raise Timeout("it took too long")


def _keep(
    arguments: argparse.Namespace, state: dict[str, Any], number: int, what: str, error: BaseException, data: bytes
) -> None:
    said = f"{type(error).__name__}: {str(error)[:300]}"
    where = traceback.extract_tb(error.__traceback__)[-1]
    state["faults"].append(
        {"number": number, "mutation": what, "error": said, "at": f"{where.filename}:{where.lineno}"}
    )
    if arguments.faults:
        arguments.faults.mkdir(parents=True, exist_ok=True)
        (arguments.faults / f"{arguments.seed}-{number}.safetensors").write_bytes(data)


def note(path: Path, state: dict[str, Any]) -> None:
    """Writes the state whole."""
    scratch = path.with_name(path.name + ".tmp")
    scratch.write_text(json.dumps(state, indent=1))
    os.replace(scratch, path)


def known_state(arguments: argparse.Namespace) -> dict[str, Any]:
    """The state in the file, or that of a beginning."""
    path, seed, kinds = arguments.state, arguments.seed, arguments.of
    if path.exists():
        state = json.loads(path.read_text())
        if (state["seed"], state.get("of", "*")) != (seed, kinds):
            raise SystemExit(f"{path} is of seed {state['seed']}, --of {state.get('of', '*')!r}; give another --state")
        return state
    counts: dict[str, Any] = {"outcomes": {}, "by mutation": {}, "faults": [], "peak bytes": 0}
    return {"seed": seed, "of": kinds, "next": 0, **counts, "peak bytes beyond rest": 0, "seconds": 0.0}


def one(arguments: argparse.Namespace, folder: Path) -> None:
    """One file, as it is."""
    source, name, data = mutation(arguments.only, arguments.seed, sources(arguments.of))
    path = folder / "mutated.safetensors"
    path.write_bytes(data)
    print(f"{name} of {source.name}, {len(data)} bytes")
    print(check_file(path, source.network, source.inputs))


def worker(arguments: argparse.Namespace, folder: Path) -> None:
    state = known_state(arguments)
    state["by mutation"] = {name: Counter(counts) for name, counts in state["by mutation"].items()}
    read_some(arguments, sources(arguments.of), state, folder)


def supervise(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Starts readers until every file was read; what one dies of is a fault."""
    marker = folder / "number"
    words = [sys.executable, __file__, *sys.argv[1:], "--marker", str(marker)]
    while (state := known_state(arguments))["next"] < arguments.count:
        started = time.perf_counter()
        marker.write_bytes(b"")
        code = subprocess.run(words, check=False).returncode
        state = known_state(arguments)
        state["seconds"] += time.perf_counter() - started
        if code in (-signal.SIGINT, 130):
            raise KeyboardInterrupt
        if code:
            if code > 0:
                raise SystemExit(f"the process ended with {code}; see above")
            number = int.from_bytes(marker.read_bytes(), "little")
            state["faults"].append(
                {"number": number, "mutation": "", "error": f"the process ended with {code}", "at": ""}
            )
            state["next"] = number + 1
        note(arguments.state, state)
    return state


def show(state: dict[str, Any]) -> None:
    """Counts, faults and peaks."""
    outcomes = Counter(state["outcomes"])
    loaded = outcomes.pop("loaded", 0)
    faults = outcomes.pop("FAULT", 0)
    print(
        f"{state['next']} files of seed {state['seed']}: {loaded} loaded, {outcomes.total()} refused, {faults} faults"
    )
    print(f"peak {state['peak bytes'] / 1e6:.0f} MB, {state['peak bytes beyond rest'] / 1e6:.1f} MB beyond sound files")
    for name, counts in sorted(state["by mutation"].items()):
        print(f"  {name:24}" + "".join(f"{counts.get(kind, 0):9} {kind}" for kind in ("loaded", "refused", "fault")))
    for reason, times in outcomes.most_common():
        print(f"  {times:7} {reason}")
    for fault in state["faults"]:
        print("  FAULT", fault)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--of", default="*", metavar="PATTERN", help="of what is mutated, e.g. 'trellis*'")
    parser.add_argument("--state", type=Path, default=Path("fuzz.json"))
    parser.add_argument("--faults", type=Path)
    parser.add_argument("--megabytes", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--only", type=int)
    parser.add_argument("--marker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        if arguments.only is not None:
            one(arguments, Path(folder))
        elif arguments.marker is not None:
            worker(arguments, Path(folder))
        else:
            show(supervise(arguments, Path(folder)))


if __name__ == "__main__":
    main()
