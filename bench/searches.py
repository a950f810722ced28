"""Do searched ranks beat equal ones? Accuracy by search and budget, before and after refinement, on CIFAR-10 (JPEG).

    python bench/searches.py --shared DIR [--network 20] [--seeds 1] [--bits 2] [--budgets 0.1,0.4,0.75] [--out FILE]

Preset ``fast``: layers coded in sequence with GPTQ and loss-weighted adapters. `alone` codes them one by one instead,
as the search sees them. Finished runs are kept in the output file and not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

import corank
from corank.calibration import Context, Samples
from corank.layers import prepare
from corank.presets import PRESETS, Preset
from corank.refine import Refinement, refine

sys.path.insert(0, str(Path(__file__).parent))
from cifar_task import NETWORKS, CifarTask

SEARCHES = ("uniform", "greedy", "cora-from-0.9", "cora")


def preset(order: str) -> Preset:
    """``fast``, or ``fast`` with each layer coded on the float network's inputs."""
    fast = PRESETS["fast"]
    return fast if order == "sequence" else replace(fast, layer=replace(fast.layer, sequential=False))


def measure(task: CifarTask, order: str, search: str, bits: int, budget: float, seed: int) -> dict[str, object]:
    """Accuracy before and after 250 steps of refinement, with CPU seconds of search and coding."""
    started = time.process_time()
    small = corank.quantize(
        task.model, task.train, bits=bits, budget=budget, search=search, preset=preset(order), seed=seed
    )
    seconds = time.process_time() - started
    record = corank.inspect(small)
    before = corank.evaluate(small, task.test).top1
    refined(small, task, seed)
    return {
        "bits": record["equivalent_bits"],
        "ranks": [layer["rank"] for layer in record["layers"]],
        "before": before,
        "after": corank.evaluate(small, task.test).top1,
        "cpu_seconds": round(seconds, 1),
    }


def refined(small: nn.Module, task: CifarTask, seed: int) -> None:
    """Refines in place with the steps of preset ``best``, whatever the search took."""
    chosen = task.train.sample(1600, seed)
    images = Samples.of((batch for batch, _ in chosen.batches(32)), 1600)
    probe = images.first(2)
    with torch.no_grad():
        prepared = prepare(task.model, lambda model: model(probe))
    refine(small, prepared.model, Refinement(), Context(prepared, images, seed=seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--network", type=int, choices=tuple(NETWORKS), default=20)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--bits", type=int, default=2)
    parser.add_argument("--budgets", default="0.1,0.4,0.75")
    parser.add_argument("--orders", default="sequence,alone")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/searches.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = CifarTask.of(options.shared, options.network)
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    for seed in range(options.seeds):
        for order in options.orders.split(","):
            for budget in map(float, options.budgets.split(",")):
                for search in SEARCHES:
                    key = f"resnet{options.network}/{options.bits}+{budget:g} {search} {order}/{seed}"
                    if key in results:
                        continue
                    results[key] = measure(task, order, search, options.bits, budget, seed)
                    row = results[key]
                    print(f"{key:<46} {row['before']:.2f} -> {row['after']:.2f} at {row['bits']:.3f} bits", flush=True)
                    options.out.parent.mkdir(parents=True, exist_ok=True)
                    options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
