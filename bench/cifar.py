"""ResNet-20 and ResNet-56 on CIFAR-10 (JPEG): accuracy against real bytes, for presets, budgets, searches and seeds.

    python bench/cifar.py --shared DIR [--network 20] [--seeds 3] [--out results.json] [--only "fast 2+0.4"]

Calibration: 1600 training images drawn by the seed; scored on all 10,000 test images. Finished runs are kept in the
output file and not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch

import corank

sys.path.insert(0, str(Path(__file__).parent))
from cifar_task import NETWORKS, CifarTask

CASES: dict[str, dict[str, object]] = {
    "paper 3+0.5": {"preset": "paper", "bits": 3, "budget": 0.5},
    "fast 4+0.1": {"bits": 4, "budget": 0.1},
    "fast 3+0.2": {"bits": 3, "budget": 0.2},
    "fast 2+0.4": {"bits": 2, "budget": 0.4},
    "fast 2+0.4 greedy": {"bits": 2, "budget": 0.4, "search": "greedy"},
    "fast 2+0.4 uniform": {"bits": 2, "budget": 0.4, "search": "uniform"},
    "fast 2+0.75": {"bits": 2, "budget": 0.75},
    "fast 2+0.75 greedy": {"bits": 2, "budget": 0.75, "search": "greedy"},
    "fast 2+0.75 uniform": {"bits": 2, "budget": 0.75, "search": "uniform"},
    "fast 2+0.1": {"bits": 2, "budget": 0.1},
    "fast 2+0": {"bits": 2, "budget": 0.0},
    "fast 3+0": {"bits": 3, "budget": 0.0},
    "best 2+0": {"preset": "best", "bits": 2},
    "best 2+0.07": {"preset": "best", "bits": 2, "budget": 0.07},
    "best 2+0.4": {"preset": "best", "bits": 2, "budget": 0.4},
    "best 2+0.4 joint": {"preset": "best", "bits": 2, "budget": 0.4, "search": "joint"},
    "best 3+0": {"preset": "best", "bits": 3},
    "best 3+0.08": {"preset": "best", "bits": 3, "budget": 0.08},
    "best 3+0.25": {"preset": "best", "bits": 3, "budget": 0.25},
    "best 1+0.4": {"preset": "best", "bits": 1, "budget": 0.4},
    "fast rate 4": {"rate": 4.0},
    "fast rate 3": {"rate": 3.0},
    "fast rate 2": {"rate": 2.0},
    "fast rate 1.4": {"rate": 1.4},
    "fast rate 1": {"rate": 1.0},
    "fast rate 0.7": {"rate": 0.7},
    "best rate 1": {"preset": "best", "rate": 1.0},
    "best rate 1.4": {"preset": "best", "rate": 1.4},
    "best rate 1.9": {"preset": "best", "rate": 1.9},
    "best rate 2.05": {"preset": "best", "rate": 2.05},
    "best rate 2.35": {"preset": "best", "rate": 2.35},
    "best rate 3": {"preset": "best", "rate": 3.0},
    "best 48 KB": {"preset": "best", "size": "48KB", "rate": "auto"},
    "best 38 KB": {"preset": "best", "size": "38KB", "rate": "auto"},
    "best 48 KB trellis": {"preset": "best", "size": "48KB", "codec": "trellis"},
    "best 38 KB trellis": {"preset": "best", "size": "38KB", "codec": "trellis"},
    "nearest 4": {"preset": "nearest", "bits": 4, "budget": 0.0},
    "nearest 3": {"preset": "nearest", "bits": 3, "budget": 0.0},
    "nearest 2": {"preset": "nearest", "bits": 2, "budget": 0.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--network", type=int, choices=tuple(NETWORKS), default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("build/cifar.json"))
    parser.add_argument("--only", action="append")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = CifarTask.of(options.shared, options.network)
    model, train, batches = task.model, task.train, task.test
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    results.setdefault("float", corank.evaluate(model, batches).top1)
    print(f"float {results['float']:.2f}")
    for seed in range(options.seeds):
        for name in options.only or CASES:
            key = f"resnet{options.network}/{name}/{seed}"
            if key in results:
                continue
            started = time.process_time()
            quantized = corank.quantize(model, train, seed=seed, **CASES[name])  # pyright: ignore[reportArgumentType]
            seconds = time.process_time() - started
            with tempfile.TemporaryDirectory() as folder:
                stored = corank.save(quantized, Path(folder) / "model.safetensors")
            run = corank.inspect(quantized, codes=True)
            weights = [layer["shape"][0] * layer["shape"][1] for layer in run["layers"]]
            coded = sum(
                layer["file_bits_per_weight"] * count for layer, count in zip(run["layers"], weights, strict=True)
            )
            results[key] = {
                "top1": corank.evaluate(quantized, batches).top1,
                "equivalent_bits": run["equivalent_bits"],
                "file_bits": round(coded / sum(weights), 4),
                "stored_bytes": stored,
                "seconds": run["seconds"],
                "cpu_seconds": round(seconds, 1),
                "iterations": run["iterations"],
                "ranks": [layer["rank"] for layer in run["layers"]],
            }
            top1, bits = results[key]["top1"], results[key]["file_bits"]
            print(
                f"{key:<40} {top1:.2f} at {run['equivalent_bits']:.3f} bits, {bits:.3f} in the file of {stored} bytes, "
                f"{seconds:.1f} CPU s",
                flush=True,
            )
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
