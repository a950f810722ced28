"""Inputs at 8 and 4 bits on CIFAR-10 (JPEG): `fast` beside reconstruction in the manner of QDrop, three seeds.

    python bench/activations.py --shared DIR [--network 20] [--seeds 3] [--iterations 2000] [--out FILE]

`qdrop` rounds to nearest and then learns the rounding block by block with half of the inputs' elements in float
(arXiv 2203.05740). The paper takes 20,000 iterations a block; 2000 are the default here.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

import corank
from corank import BlockReconstruction

sys.path.insert(0, str(Path(__file__).parent))
from cifar_task import NETWORKS, CifarTask


def methods(iterations: int) -> dict[str, dict[str, Any]]:
    """What `quantize` is called with."""
    qdrop = BlockReconstruction(iterations=iterations, drop=0.5)
    return {"fast": {"preset": "fast"}, "qdrop": {"preset": "nearest", "refinement": qdrop}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--network", type=int, choices=tuple(NETWORKS), default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/activations.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = CifarTask.of(options.shared, options.network)
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name, how in methods(options.iterations).items():
        for seed in range(options.seeds):
            for width in (8, 4):
                key = f"resnet{options.network}/{name} W4A{width}/{seed}"
                if key in results:
                    continue
                started = time.process_time()
                small = corank.quantize(task.model, task.train, bits=4, budget=0, activations=width, seed=seed, **how)
                seconds = time.process_time() - started
                score = corank.evaluate(small, task.test).top1
                results[key] = {"top1": score, "cpu_seconds": round(seconds, 1)}
                print(f"{key:<28} {score:.2f}, {seconds:.0f} CPU s", flush=True)
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
