"""Time and peak memory of quantizing full-size networks with random weights, each in a process of its own.

    python bench/resources.py [--samples 64] [--bits 4] [--only NAME] [--record FILE]
    python bench/resources.py --only NAME --interrupt    # killed at half of the layers, resumed: the same file?

64 random images of 224 x 224, the ``fast`` preset with greedy ranks. ``untraceable`` branches on the data and builds
its input in Python, so that ``torch.fx`` cannot trace it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

MODELS = ("torchvision:resnet18", "torchvision:resnet50", "timm:mobilenetv3_large_100", "untraceable")


class Untraceable(nn.Module):
    """A ResNet-18 whose path depends on its input."""

    def __init__(self) -> None:
        super().__init__()
        from corank.models import resolve

        self.body = resolve("torchvision:resnet18").model
        self.extra = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        if float(images.mean()) > -1e9:
            images = images + self.extra(images)
        return {"logits": self.body(torch.stack([image for image in images]))}


def one(name: str, samples: int, bits: int, out: Path | None, checkpoint: Path | None) -> dict[str, float | str]:
    import corank
    from corank.evaluation import peak_memory_bytes
    from corank.models import resolve

    torch.manual_seed(0)
    if name == "untraceable":
        model: nn.Module = Untraceable().eval()
        try:
            torch.fx.symbolic_trace(model)
            raise AssertionError("torch.fx traced it")
        except (torch.fx.proxy.TraceError, TypeError) as error:
            print(f"torch.fx: {type(error).__name__}")
    else:
        model = resolve(name).model
    images = torch.randn(samples, 3, 224, 224)
    started = time.perf_counter()
    quantized = corank.quantize(
        model, images, bits=bits, search="greedy", checkpoint=checkpoint, progress=said if checkpoint else None
    )
    seconds = time.perf_counter() - started
    record = corank.inspect(quantized)
    if out is not None:
        corank.save(quantized, out)
    return {
        "model": name,
        "seconds": round(seconds, 1),
        "peak_memory_bytes": peak_memory_bytes(),
        "equivalent_bits": record["equivalent_bits"],
        "stored_bytes": record["stored_bytes"],
        "layers": len(record["layers"]),
        "skipped": len(record["skipped"]),
    }


def said(what: str, done: int, total: int) -> None:
    """Prints what the interrupting process waits for."""
    print(what, done, total, flush=True)


def interrupted(name: str, samples: int, bits: int) -> dict[str, float | str | bool]:
    """One straight run, and one killed when half of the layers are coded and then resumed."""
    with tempfile.TemporaryDirectory() as folder:
        straight, resumed = Path(folder) / "straight.safetensors", Path(folder) / "resumed.safetensors"
        command = [sys.executable, __file__, "--only", name, "--samples", str(samples), "--bits", str(bits)]
        row = last_line(subprocess.run([*command, "--out", str(straight)], capture_output=True, text=True, check=True))
        again = [*command, "--out", str(resumed), "--checkpoint", str(Path(folder) / "steps")]
        with subprocess.Popen(again, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                words = line.split()
                if words[0] == "coding" and 2 * int(words[-2]) >= int(words[-1]):
                    process.kill()
        first = process.returncode
        started = time.perf_counter()
        rest = last_line(subprocess.run(again, capture_output=True, text=True, check=True))
        return {
            **row,
            "killed": first == -9,
            "seconds_after_resuming": round(time.perf_counter() - started, 1),
            "peak_memory_bytes_after_resuming": rest["peak_memory_bytes"],
            "identical_file": straight.read_bytes() == resumed.read_bytes(),
        }


def last_line(finished: subprocess.CompletedProcess[str]) -> dict[str, float | str]:
    """The record that a run of this script ends with."""
    return json.loads(finished.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--only", choices=MODELS)
    parser.add_argument("--interrupt", action="store_true", help="with --only: kill it at half and resume")
    parser.add_argument("--out", type=Path, help="with --only: where the quantized network goes")
    parser.add_argument("--checkpoint", type=Path, help="with --only: keep the steps here")
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    if options.only and options.interrupt:
        print(json.dumps(interrupted(options.only, options.samples, options.bits)))
        return
    if options.only:
        print(json.dumps(one(options.only, options.samples, options.bits, options.out, options.checkpoint)))
        return
    rows = []
    for name in MODELS:
        command = [sys.executable, __file__, "--only", name]
        command += ["--samples", str(options.samples), "--bits", str(options.bits)]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode:
            sys.exit(f"{name} failed:\n{finished.stderr[-2000:]}")
        rows.append(last_line(finished))
        row = rows[-1]
        print(
            f"{name:<28}{row['seconds']:>8.1f} s {row['peak_memory_bytes'] / 1e9:>6.2f} GB peak "
            f"{row['equivalent_bits']:>6.3f} bits {row['stored_bytes'] / 1e6:>6.2f} MB",
            flush=True,
        )
    if options.record:
        options.record.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
