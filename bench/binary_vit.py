"""A miniature BinaryViT on CIFAR images: all in float, with float transitions and fully binary, side by side.

    python bench/binary_vit.py --shared DIR [--steps 600] [--batch 64] [--seed 0] [--only NAME]... [--out FILE.json]
    python bench/binary_vit.py --out FILE.json --table

Three stages of one block, 1.2 million weights, from scratch with labels; in the last row the same learns from a trained
ResNet-20 alone, as the paper's does from a DeiT. Scored on 10,000 test images; in the packed form, too, whose products
of signs are counted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import corank
from corank.models import BinaryViT, BinaryViTShape
from corank.training.recipes import chosen_recipe

sys.path.insert(0, str(Path(__file__).parent))
from cifar_task import CifarTask
from training_runs import Kept

SHAPE = BinaryViTShape(32, 4, 64, (1, 1, 1), (4, 4, 4), (2, 1, 1))
FLOAT, TRANSITIONS, BINARY, TAUGHT = "float", "float transitions", "binary", "binary, taught by ResNet-20"
ROWS = (FLOAT, TRANSITIONS, BINARY, TAUGHT)
_PARTS = 10  # of the curve


def trained(name: str, task: CifarTask, options: argparse.Namespace) -> tuple[nn.Module, float, list[float]]:
    """The network of a row, the CPU seconds of its training, and the loss of each step."""
    recipe = chosen_recipe("binary-vit-w1a1")
    recipe = recipe.replaced(optimizer=replace(recipe.optimizer, rate=options.rate), batch_size=options.batch)
    given: dict[str, Any] = {"iterations": options.steps, "seed": options.seed}
    shape = SHAPE
    if name == FLOAT:
        shape = replace(SHAPE, form="float")
        recipe = recipe.replaced(weights=None, inputs=None, edge=None, edge_inputs=None)
    if name == TRANSITIONS:
        given["layers"] = {"*.transition.conv": "float"}
    if name == TAUGHT:
        given["teacher"] = task.model
    torch.manual_seed(options.seed)
    started, curve = time.process_time(), list[float]()
    given["progress"] = lambda what, done, total: _noted(curve, what, done, total)
    network = corank.train(BinaryViT(10, shape), task.train, recipe, **given)
    return network, time.process_time() - started, curve


def _noted(curve: list[float], what: str, done: int, total: int) -> None:
    """Keeps the loss of each step, and says it now and then."""
    if what.startswith("training, loss "):
        curve.append(float(what.rpartition(" ")[2]))
        if done % max(1, total // _PARTS) == 0:
            print(f"  {done}/{total} loss {sum(curve[-50:]) / len(curve[-50:]):.3f}", file=sys.stderr, flush=True)


def record_of(name: str, task: CifarTask, options: argparse.Namespace) -> dict[str, Any]:
    """A row: accuracy, bytes, seconds and the curve."""
    network, seconds, curve = trained(name, task, options)
    found: dict[str, Any] = {
        "top1": corank.evaluate(network, task.test).top1, "train_cpu_seconds": round(seconds, 1),
        "steps": options.steps, "batch": options.batch, "rate": options.rate, "seed": options.seed,
        "curve": [round(sum(part) / len(part), 4) for part in _split(curve)],
        "weights": sum(p.numel() for p in BinaryViT(10, SHAPE).parameters() if p.dim() > 1),
    }  # fmt: skip
    if name == FLOAT:
        return {**found, "bytes": 4 * sum(tensor.numel() for tensor in network.state_dict().values())}
    with tempfile.TemporaryDirectory() as folder:
        found["bytes"] = corank.save(network, Path(folder) / "binary_vit.safetensors")
    return {**found, "packed_top1": corank.evaluate(corank.to_packed(network), task.test).top1}


def _split(curve: list[float]) -> list[list[float]]:
    size = max(1, len(curve) // _PARTS)
    return [curve[place : place + size] for place in range(0, len(curve), size)]


def table(records: dict[str, Any]) -> str:
    """The rows as Markdown."""
    lines = ["| Network | top-1 | packed | bytes | CPU s |", "|---|--:|--:|--:|--:|"]
    for name, row in records.items():
        packed = f"{row['packed_top1']:.2f}" if "packed_top1" in row else ""
        lines.append(f"| {name} | {row['top1']:.2f} | {packed} | {row['bytes']:,} | {row['train_cpu_seconds']:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=20_000, help="images that are trained on")
    parser.add_argument("--images", type=int, help="of each set, to try the script")
    parser.add_argument("--only", action="append", choices=ROWS)
    parser.add_argument("--out", type=Path, default=Path("bench/results/binary_vit.json"))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    kept = Kept(options.out)
    if not options.table:
        if options.shared is None:
            parser.error("--shared DIR: the folder with data/cifar10_jpeg_train.zip and models/")
        torch.set_num_threads(1)
        task = CifarTask.of(options.shared, 20, labelled=True, images=options.images)
        task = replace(task, train=task.train.sample(min(options.train, len(task.train)), 0))
        for name in options.only or ROWS:
            if name not in kept:
                print(name, file=sys.stderr, flush=True)
                kept.put(name, record_of(name, task, options))
    print(table(kept.records))


if __name__ == "__main__":
    main()
