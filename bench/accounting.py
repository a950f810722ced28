"""Where the bytes of real files go: codes, adapters, scales, biases and norms, the rest; and the codes' entropy.

    python bench/accounting.py --shared DIR [--file PATH ...] [--coder auto] [--out results.json]

Seven files of five networks, quantized on few images (what is asked is bytes, not accuracy), and any other files. Codes
are held against the entropy of single codes of each layer, and all of a file against what it takes by coders of before
(`--coder`: several are written of the same network and listed).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from default_tasks import TASKS

import corank
from corank.storage.artifact import opened, read_coded
from corank.storage.artifact_file import coded_sizes
from corank.storage.coders import entropy
from corank.storage.entropy_coding import relative_codes

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ResNet-20, rate 0.7": ("resnet20", {"rate": 0.7, "samples": 64}),
    "ResNet-20, rate 1": ("resnet20", {"rate": 1.0, "samples": 64}),
    "ResNet-20, rate 2": ("resnet20", {"rate": 2.0, "samples": 64}),
    "ResNet-20, 2 + 0.25 bits": ("resnet20", {"bits": 2, "budget": 0.25, "search": "greedy", "samples": 64}),
    "MobileNetV2-0.5, rate 2": ("mobilenet", {"rate": 2.0, "samples": 32}),
    "vision transformer, rate 2": ("vit", {"rate": 2.0, "samples": 16}),
    "SqueezeNet 1.1, rate 2": ("squeezenet", {"rate": 2.0, "samples": 4}),
    "stories260k, rate 2": ("stories260k", {"rate": 2.0, "samples": 16}),
}


def parts_of(path: Path) -> dict[str, Any]:
    """Bytes of a file by what they hold, and the entropy of its codes, in bytes."""
    run, contents, runs = read_coded(path)
    found = Counter({"codes": 0, "adapters, offsets": 0})
    for part in runs:
        found["codes" if part.slot == "codes" else "adapters, offsets"] += part.size_bytes
    coded = coded_sizes(opened(path)[1].header, set(contents.blobs))
    for kind, blob in contents.blobs.items():
        if kind != "codes":
            name = "scales" if kind == "scales" else "biases, norms, float"
            found[name] += coded.get(kind, blob.numel() * blob.element_size())
    total = path.stat().st_size
    found["header"] = total - sum(found.values())
    by_layer = {
        name: codes.numel() * entropy(codes, 1 << bits) / 8 for name, codes, bits in relative_codes(run, contents)
    }
    return {
        "bytes": total,
        **found,
        "not_codes": 1 - found["codes"] / total,
        "of_entropy": found["codes"] / sum(by_layer.values()),
        "layers": {
            part.layer: [part.coder, part.size_bytes, by_layer[part.layer]] for part in runs if part.slot == "codes"
        },
    }


def files(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Path, float]]:
    """Name, path, and CPU seconds that saving took."""
    for name, (task, settings) in CASES.items():
        if options.only and not any(one in name for one in options.only):
            continue
        made = TASKS[task](options.shared, 10)
        small = corank.quantize(made.model, made.data, **settings)
        for coder in options.coder:
            path = folder / f"{name}.{coder}"
            started = time.process_time()
            corank.save(small, path, coder=coder)
            yield f"{name}, {coder}", path, time.process_time() - started
    for path in options.file:
        yield str(path.name), path, 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--file", type=Path, action="append", default=[])
    parser.add_argument("--coder", action="append", help="repeatable; auto otherwise")
    parser.add_argument("--only", action="append", help="names of files that hold this")
    parser.add_argument("--out", type=Path, default=Path("build/accounting.json"))
    options = parser.parse_args()
    options.coder = options.coder or ["auto"]
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, path, seconds in files(options, Path(folder)):
            row = {**parts_of(path), "save_seconds": round(seconds, 2)}
            results[name] = row
            held = ", ".join(f"{key} {row[key]}" for key in row if isinstance(row[key], int) and key != "bytes")
            print(
                f"{name}: {row['bytes']} bytes: {held}; {100 * row['not_codes']:.1f} % not codes, codes "
                f"{row['of_entropy']:.3f} of their entropy, saved in {seconds:.2f} CPU s",
                flush=True,
            )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
