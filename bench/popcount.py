"""Products of signs by popcount against the same in float, one thread, by width and samples at once.

    python bench/popcount.py [--widths 128 256 512 1024 2048] [--samples 1 16 64] [--networks] [--out FILE.json]

Measured in turns within one run, in the time of the thread itself, as the machine may be busy: ``F.linear`` in float32
with a bias; ``sign_linear``, which takes the signs of float32 inputs less a shift of each, counts, scales and adds a
bias; and the whole layers ``CodedLinear`` (1 bit, inputs of 1 bit, as simulated in float) and ``PackedLinear``. That
the whole numbers are those of float is checked first.
``--networks``: one image through a BinaryViT with random weights, in float, coded and packed, the paper's size last.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import corank
from corank.codecs import Binary
from corank.coded_weight import CodedWeight
from corank.kernels import INSTRUCTIONS, instructions, pack_signs, sign_linear, sign_product
from corank.layers import BinaryInputs, CodedLayerState, CodedLinear, packed_layer
from corank.models import BinaryViT, BinaryViTShape

MINIATURE = BinaryViTShape(32, 4, 64, (1, 1, 1), (4, 4, 4), (2, 1, 1))
_ROUNDS, _SECONDS = 7, 0.05


def microseconds(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The best of some rounds of each, in turns."""
    counts = dict.fromkeys(calls, 1)
    for name, call in calls.items():
        started = time.thread_time()
        call()
        call()
        counts[name] = max(2, int(2 * _SECONDS / max(1e-6, time.thread_time() - started)))
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(_ROUNDS):
        for name, call in calls.items():
            started = time.thread_time()
            for _ in range(counts[name]):
                call()
            best[name] = min(best[name], (time.thread_time() - started) / counts[name])
    return {name: round(1e6 * seconds, 2) for name, seconds in best.items()}


def coded(weight: Tensor, bias: Tensor, inputs: BinaryInputs) -> CodedLinear:
    """The layer that ``corank.train`` ends in."""
    plain = nn.Linear(weight.shape[1], weight.shape[0])
    book = Binary().fit(weight)
    layer = CodedLinear(plain, Binary(), inputs=1)
    layer.keep_shifts(inputs.shifts)
    layer.fill(CodedLayerState(Binary(), CodedWeight(book.nearest(weight), book), None, 8, inputs), bias)
    return layer.eval()


def measured(width: int, samples: int) -> dict[str, Any]:
    """A square layer's row.

    Raises:
        SystemExit: where the whole numbers differ.
    """
    torch.manual_seed(width)
    x, weight, bias, shift = (torch.randn(*size) for size in ((samples, width), (width, width), (width,), (width,)))
    packed, factor = pack_signs(weight >= 0), weight.abs().mean(1)
    expected = ((x >= shift).float() * 2 - 1) @ ((weight >= 0).float() * 2 - 1).T
    for level in range(len(INSTRUCTIONS)):
        if not torch.equal(sign_product(x, packed, shift, level), expected.to(torch.int32)):
            raise SystemExit(f"width {width}: {INSTRUCTIONS[level]} gives other numbers than float")
    layer = coded(weight, bias, BinaryInputs(torch.tensor(1.0), shift.half().float()))
    counted = packed_layer(layer)
    found = microseconds(
        {
            "float": lambda: F.linear(x, weight, bias),
            "counted": lambda: sign_linear(x, packed, factor, bias, shift),
            "coded layer": lambda: layer(x),
            "packed layer": lambda: counted(x),
        }
    )
    return {"width": width, "samples": samples, **found, "times faster": round(found["float"] / found["counted"], 2)}


def of_network(shape: BinaryViTShape) -> dict[str, Any]:
    """Milliseconds of one image, of the thread alone: the least of some rounds, in turns."""
    torch.manual_seed(0)
    images, model = torch.randn(2, 3, shape.size, shape.size), BinaryViT(10, shape).eval()
    labels = torch.tensor([0, 1])
    coded_one = corank.train(model, (images, labels), "binary-vit-w1a1", iterations=0, batch_size=2, samples=2)
    networks = {"float": model, "coded": coded_one, "packed": corank.to_packed(coded_one)}
    best = dict.fromkeys(networks, float("inf"))
    with torch.inference_mode():
        for _ in range(100 if shape.size < 64 else 8):
            for name, network in networks.items():
                started = time.thread_time()
                network(images[:1])
                best[name] = min(best[name], time.thread_time() - started)
    numbers = sum(one.numel() for one in model.parameters())
    return {"size": shape.size, "numbers": numbers, **{name: round(1000 * one, 2) for name, one in best.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 256, 512, 1024, 2048])
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--networks", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"counted by {instructions()}; microseconds, one thread")
    with torch.inference_mode():
        rows = [measured(width, samples) for samples in options.samples for width in options.widths]
    networks = [of_network(shape) for shape in (MINIATURE, BinaryViTShape())] if options.networks else []
    for found in (rows, networks):
        for place, row in enumerate(found):
            if not place:
                print("| " + " | ".join(row) + " |\n|" + "--:|" * len(row))
            print("| " + " | ".join(f"{value}" for value in row.values()) + " |")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(
            json.dumps({"counted by": instructions(), "rows": rows, "networks, ms": networks}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
