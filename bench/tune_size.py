"""The best file of a size: `corank tune --size 60KB` on ResNet-20 beside `corank quantize --size 60KB`.

    python bench/tune_size.py --shared DIR [--size 60KB] [--trials 12] [--only NAME] [--out FILE]

Five parts, each kept in the output file and not run again: `default` quantizes with no setting but the size; `whole`
tunes in one go; `resumed` is killed (SIGKILL) when half of its trials are done, and the same command goes on; `two`
are two processes at once on one storage; `again` runs the command that the winner printed. Training images, without
their labels, are all that is read; every file is then scored on the 10,000 test images. CPU seconds are those of the
processes, by the operating system. Ranks of adapters are found greedily (`--choice search=greedy`): the other search
takes 250 passes for each trial.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NETWORK = f"{HERE / 'models.py'}:cifar_resnet20"
Results = dict[str, Any]


class Bench:
    """What every part is given: where data are, where files go, and what was asked for."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.folder: Path = options.folder
        self.folder.mkdir(parents=True, exist_ok=True)

    def words(self, command: str, out: Path, *more: object) -> list[str]:
        shared = self.options.shared
        given = ("--weights", shared / "models/cifar10_resnet20.safetensors", "--size", self.options.size)
        data = ("--data", shared / "data/cifar10_jpeg_train.zip", "--out", out)
        return list(map(str, (sys.executable, "-m", "corank", command, NETWORK, *given, *data, *more)))

    def tuning(self, name: str, trials: int) -> list[str]:
        out = self.folder / f"{name}.safetensors"
        asked = ("--trials", trials, "--samples", self.options.samples, "--selection", self.options.selection)
        told = ("--choice", "search=greedy", "--record", out.with_suffix(".json"))
        return self.words("tune", out, *asked, *told, "--report", out.with_suffix(".html"))

    def scored(self, file: Path) -> Results:
        data = self.options.shared / "data/cifar10_jpeg_test.zip"
        words = (sys.executable, "-m", "corank", "evaluate", file, "--model", NETWORK, "--data", data, "--json")
        found = json.loads(subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True).stdout)
        whole = file.read_bytes()
        return {"bytes": len(whole), "top1": found["quantized_value"], "sha256": hashlib.sha256(whole).hexdigest()}


def timed(work: Any) -> Results:
    """What it returns, with the CPU seconds of the processes that it ran."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    found = work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**found, "cpu_seconds": round(cpu, 1), "seconds": round(time.perf_counter() - started, 1)}


def default(bench: Bench) -> Results:
    """One call of `quantize`."""
    out = bench.folder / "default.safetensors"
    found = timed(lambda: subprocess.run(bench.words("quantize", out, "--quiet"), check=True) and {})
    return {**found, **bench.scored(out)}


def whole(bench: Bench) -> Results:
    """A tuning in one go."""
    return tuned(bench, "whole", lambda words: subprocess.run(words, check=True))


def resumed(bench: Bench) -> Results:
    """The same, killed when half of its trials are done."""

    def work(words: list[str]) -> None:
        process = subprocess.Popen(words, start_new_session=True)
        while process.poll() is None and finished(bench.folder / "resumed.study.db") < bench.options.trials // 2:
            time.sleep(0.5)
        killed = process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert killed, "it ended before it could be killed"
        subprocess.run(words, check=True)

    return tuned(bench, "resumed", work)


def two(bench: Bench) -> Results:
    """Two processes that begin at once, one file each, on one storage."""
    storage = ("--storage", f"sqlite:///{bench.folder / 'two.db'}")

    def work(words: list[str]) -> None:
        other = [
            word.replace("two.safetensors", "second.safetensors").replace("two.json", "second.json") for word in words
        ]
        processes = [subprocess.Popen([*one, *storage]) for one in (words, other)]
        assert [one.wait() for one in processes] == [0, 0]

    found = tuned(bench, "two", work, bench.options.shared_trials)
    files = [(bench.folder / f"{name}.safetensors").read_bytes() for name in ("two", "second")]
    trials = json.loads((bench.folder / "two.json").read_text())["trials"]
    tried = [json.dumps(one["configuration"], sort_keys=True) for one in trials]
    return {**found, "same file": files[0] == files[1], "tried twice": len(tried) - len(set(tried))}


def again(bench: Bench) -> Results:
    """The command that the winner printed."""
    study = json.loads((bench.folder / "whole.json").read_text())
    command = shlex.split(study["trials"][study["best"]]["command"])
    found = timed(
        lambda: subprocess.run([sys.executable, "-m", *command, "--quiet"], check=True, cwd=bench.folder) and {}
    )
    digest = hashlib.sha256((bench.folder / "trial.safetensors").read_bytes()).hexdigest()
    return {**found, "same bytes": digest == study["trials"][study["best"]]["rungs"][-1]["sha256"]}


def tuned(bench: Bench, name: str, work: Any, trials: int | None = None) -> Results:
    """A study's own numbers, and its file's on the test images."""
    words = bench.tuning(name, trials or bench.options.trials)
    found = timed(lambda: (work(words), {})[1])
    study = json.loads((bench.folder / f"{name}.json").read_text())
    best = study["trials"][study["best"]]
    states = [one["state"] for one in study["trials"]]
    return {
        **found, **bench.scored(bench.folder / f"{name}.safetensors"),
        "trials": len(states), "left after a cheap look": states.count("pruned"), "failed": states.count("failed"),
        "best": best["number"], "configuration": best["configuration"], "score": best["rungs"][-1]["score"],
        "error": best["rungs"][-1]["error"], "final": study["final"]["score"],
        "seconds of trials": [round(one["seconds"], 1) for one in study["trials"]],
    }  # fmt: skip


def finished(storage: Path) -> int:
    """Trials in a storage that are over."""
    if not storage.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{storage}?mode=ro", uri=True) as database:
            return database.execute("select count(*) from trials where datetime_complete is not null").fetchone()[0]
    except sqlite3.OperationalError:  # being made
        return 0


PARTS = {"default": default, "whole": whole, "again": again, "resumed": resumed, "two": two}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=lambda text: Path(text).resolve(), required=True)
    parser.add_argument("--size", default="60KB")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--samples", type=int, default=400, help="that a tuning calibrates on")
    parser.add_argument("--selection", type=int, default=1000, help="that it scores on")
    parser.add_argument("--shared-trials", type=int, default=6, help="of the two processes together")
    parser.add_argument("--folder", type=Path, default=Path("build/tune_size"))
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--out", type=Path, default=Path("build/tune_size.json"))
    options = parser.parse_args()
    record: Results = json.loads(options.out.read_text()) if options.out.exists() else {"size": options.size}
    for name, part in PARTS.items():
        if name not in record and name in (options.only or PARTS):
            record[name] = part(Bench(options))
            print(name, json.dumps(record[name]), flush=True)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
