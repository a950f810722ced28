"""What the defaults of `bits=` and the presets are chosen by: searches, budgets and rates on six networks.

    python bench/defaults.py --shared DIR [--network mobilenet] [--only "rate *"] [--samples 400] [--scored 2000]

Each run is kept in the output file as it ends, and not run again; one that was interrupted goes on from its checkpoint
beside that file. The table is printed of all that is there, and with `--table` alone nothing is run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from default_tasks import TASKS, Task

import corank
from corank.files import write_whole
from corank.presets import PRESETS
from corank.refine import Refinement

WIDTHS = (2, 3, 4)


def cases(sizes: Sequence[str]) -> dict[str, dict[str, object]]:
    """What is compared, by name: at every width plain codes, the searches with adapters, and codes of a rate; then
    ``fast`` and ``best`` in files of these sizes, by steps and by trellises."""
    found: dict[str, dict[str, object]] = {}
    for size in sizes:
        for name in ("fast", "best"):
            found |= {
                f"{name} in {size}": {"size": size, "preset": name},
                f"{name} trellis in {size}": {"size": size, "preset": name, "codec": "trellis"},
            }
    for bits in WIDTHS:
        found |= {
            f"rate {bits}": {"rate": float(bits)},
            f"best rate {bits}": {"rate": float(bits), "preset": "best"},
            f"adaround rate {bits}": {"rate": float(bits), "preset": replace(PRESETS["best"], refinement=None)},
            f"refined rate {bits}": {"rate": float(bits), "preset": replace(PRESETS["fast"], refinement=Refinement())},
            f"plain {bits}": {"bits": bits, "budget": 0.0},
            f"joint {bits}": {"bits": bits, "search": "joint", "budget": 0.0},
            f"joint {bits}+0.25": {"bits": bits, "search": "joint", "budget": 0.25},
            f"greedy {bits}+0.25": {"bits": bits, "search": "greedy", "budget": 0.25},
            f"cora {bits}+0.25": {"bits": bits, "search": "cora", "budget": 0.25},
            f"best {bits}": {"bits": bits, "preset": "best"},
        }
    return found


def measured(task: Task, case: dict[str, object], options: argparse.Namespace, checkpoint: Path) -> dict[str, Any]:
    """One run's record."""
    started = time.process_time()
    small = corank.quantize(
        task.model, task.data, samples=options.samples, seed=options.seed, checkpoint=checkpoint, **case
    )  # pyright: ignore[reportArgumentType]
    seconds = time.process_time() - started
    with tempfile.TemporaryDirectory() as folder:
        stored = corank.save(small, Path(folder) / "model.safetensors")
    score = corank.evaluate(small, task.test, task.model)
    history = small.__dict__["corank_run"].history
    judged = {name: history[-1][name] for name in ("before", "after") if history and name in history[-1]}
    return {
        "top1": score.top1,
        "nats": score.nats,
        "agreement": score.agreement,
        "kl": score.kl,
        "stored_bytes": stored,
        "cpu_seconds": round(seconds, 1),
        **judged,
    }


def table(results: dict[str, Any]) -> str:
    """All runs, network by network, the smallest files first."""
    lines = [
        "| Network | Asked for | File | Score | As float | KL | CPU s | Refinement: before, after |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for network in dict.fromkeys(key.split("/")[0] for key in results):
        runs = [(key.split("/")[1], run) for key, run in results.items() if key.split("/")[0] == network]
        for name, run in sorted(runs, key=lambda pair: pair[1]["stored_bytes"]):
            score = f"{run['top1']:.2f} %" if run["top1"] is not None else f"{run['nats']:.4f} nats"
            agreement = "" if run["agreement"] is None else f"{run['agreement']:.1f} %"
            judged = f"{run['before']:.4f}, {run['after']:.4f}" if "after" in run else ""
            lines.append(
                f"| {network} | {name} | {run['stored_bytes'] / 1000:.1f} KB | {score} | {agreement} | {run['kl']:.4f} "
                f"| {run['cpu_seconds']:.0f} | {judged} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--network", choices=tuple(TASKS), action="append", help="repeatable; all of them otherwise")
    parser.add_argument("--only", action="append", help='cases, as patterns such as "rate *"')
    parser.add_argument("--size", action="append", default=[], help='also files of it, e.g. "185KB"; repeatable')
    parser.add_argument("--samples", type=int, help="to calibrate with; the library's own number otherwise")
    parser.add_argument("--scored", type=int, help="test images; all of them otherwise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/defaults.json"))
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    wanted = {
        name: case
        for name, case in cases(options.size).items()
        if any(fnmatchcase(name, one) for one in options.only or ["*"])
    }
    for network in [] if options.table else options.network or list(TASKS):
        missing = {name: case for name, case in wanted.items() if f"{network}/{name}/{options.seed}" not in results}
        task = TASKS[network](options.shared, options.scored) if missing else None
        for name, case in missing.items():
            assert task is not None
            key = f"{network}/{name}/{options.seed}"
            kept = options.out.with_suffix("") / key.replace("/", ".").replace(" ", "_")
            kept.parent.mkdir(parents=True, exist_ok=True)
            results[key] = measured(task, case, options, kept)
            write_whole(options.out, json.dumps(results, indent=1) + "\n")
            shutil.rmtree(kept)
            print(key, results[key], flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
