"""SqueezeNet 1.1 on ImageNet photographs: top-1, agreement and KL to the float model, beside rounding alone.

    python bench/imagenet.py --shared DIR [--out results.json]

Calibration on the even photographs of the sample, scores on the odd ones (500: the standard error of top-1 is 2
points).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

import corank
from corank.data import load
from corank.models import resolve

CASES: dict[str, dict[str, object]] = {
    "nearest 4": {"preset": "nearest", "bits": 4, "budget": 0.0},
    "fast 4+0.1 greedy": {"bits": 4, "budget": 0.1, "search": "greedy"},
    "nearest 3": {"preset": "nearest", "bits": 3, "budget": 0.0},
    "fast 3+0.2 greedy": {"bits": 3, "budget": 0.2, "search": "greedy"},
    "fast 4+0.1": {"bits": 4, "budget": 0.1},
    "fast 3+0.2": {"bits": 3, "budget": 0.2},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("build/imagenet.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = resolve("torchvision:squeezenet1_1", weights=options.shared / "models/squeezenet1_1_fp16.safetensors")
    photographs = str(options.shared / "data/imagenet_sample.zip")
    train = load(f"{photographs}[0::2]", found.preprocessing)
    test = list(load(f"{photographs}[1::2]", found.preprocessing, labelled=True).batches(50))
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    results["float"] = corank.evaluate(found.model, test).top1
    print(f"float {results['float']:.1f}", flush=True)
    for name, case in CASES.items():
        if name in results:
            continue
        quantized = corank.quantize(found.model, train, **case)  # pyright: ignore[reportArgumentType]
        with tempfile.TemporaryDirectory() as folder:
            stored = corank.save(quantized, Path(folder) / "model.safetensors")
        score, run = corank.evaluate(quantized, test, found.model), corank.inspect(quantized)
        results[name] = {
            "top1": score.top1,
            "agreement": score.agreement,
            "kl": score.kl,
            "equivalent_bits": run["equivalent_bits"],
            "stored_bytes": stored,
            "seconds": run["seconds"],
        }
        print(
            f"{name:<12} top-1 {score.top1:.1f}, agreement {score.agreement:.1f}, KL {score.kl:.3f} at "
            f"{run['equivalent_bits']:.3f} bits, {stored} bytes, {run['seconds']:.1f} s",
            flush=True,
        )
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
