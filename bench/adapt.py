"""Several tasks on one coded ResNet-20: bytes and accuracy of adapters, of a new last layer alone, of networks each.

    python bench/adapt.py --shared DIR [--rate 2] [--iterations 40] [--out bench/results/adapt.json]
    python bench/adapt.py --table

The tasks: CIFAR-10 in grey and with noise; CIFAR-10 in five groups of two classes; scikit-learn's digits at 32
pixels. Each is learned from the same number of labelled images in the same number of steps. Finished rows are kept.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import corank
from corank.data import load
from corank.storage.adapter_file import adapter_bytes
from corank.training.recipes import chosen_recipe

sys.path.insert(0, str(Path(__file__).parent))
from cifar_task import CifarTask
from training_runs import Kept, Record, file_bytes

Labelled = tuple[Tensor, Tensor]
GROUPS = (0, 1, 2, 3, 4, 2, 3, 4, 0, 1)  # of the ten classes: those that travel, those on the road, ...
WAYS = ("base", "last layer", "rank 1", "rank 4", "rank 8", "own network")
FLOAT = "weight-aligning"  # trains a float network, its norms with it
BATCH, PACE = 32, 1e-2


@dataclass(frozen=True)
class Task:
    """Images to learn from and to score on.

    Attributes:
        classes: of a new last layer; None where the base's has them.
        read: from the base's outputs to the task's; None where they say nothing of it.
    """

    train: Labelled
    test: Labelled
    classes: int | None
    read: Callable[[Tensor], Tensor] | None


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    kept = Kept(options.out)
    if options.table:
        print(markdown(kept.records))
        return
    cifar = CifarTask.of(options.shared, 20, labelled=True, images=max(options.samples, options.scored))
    base = corank.quantize(cifar.model, cifar.train.sample(512, 0), rate=options.rate, seed=0)
    here = f"rate {options.rate:g}, {options.iterations} steps, {options.samples} images, seed 0"
    for way in ("base", "rank 4", "last layer", "rank 1", "own network", "rank 8"):
        for name, task in tasks(cifar, options.samples, options.scored).items():
            key = f"{name}: {way}; {here}"
            if key not in kept and (way != "base" or task.read):
                started = time.process_time()
                found = row(way, (cifar.model, base), task, options.iterations, options.rate)
                seconds = time.process_time() - started
                about = {"task": name, "way": way, "base_bytes": file_bytes(base), "seconds": seconds}
                kept.put(key, {**found, **about})
                print(key, kept.records[key], flush=True)


def row(way: str, networks: tuple[nn.Module, nn.Module], task: Task, iterations: int, rate: float) -> Record:
    """Accuracy in percent, and the bytes that the task takes beside the base."""
    network, base = networks
    if way == "base":
        return {"top1": top1(base, task.test, task.read), "bytes": 0}
    if way == "own network":
        own = with_classes(network, task.classes)
        recipe = chosen_recipe(FLOAT).replaced(loss="labels", iterations=iterations, batch_size=BATCH)
        tuned = corank.train(own, task.train, recipe, samples=256, seed=0)
        found = corank.quantize(tuned, task.train[0][:512], rate=rate, seed=0)
        return {"top1": top1(found, task.test), "bytes": file_bytes(found)}
    how: dict[str, Any] = {"iterations": iterations, "batch_size": BATCH, "learning_rate": PACE, "seed": 0}
    if way == "last layer":
        found = corank.adapt(base, task.train, 0, classes=task.classes or 10, biases=False, **how)
    else:
        found = corank.adapt(base, task.train, int(way.split()[1]), classes=task.classes, **how)
    return {"top1": top1(found, task.test), "bytes": len(adapter_bytes(found.__dict__["corank_adapter"]))}


def with_classes(network: nn.Module, classes: int | None) -> Any:
    """A copy of the float network, with a new last layer where the task has other classes."""
    found: Any = copy.deepcopy(network)
    if classes is not None:
        torch.manual_seed(0)
        found.linear = nn.Linear(found.linear.in_features, classes, dtype=torch.float32)
    return found.eval()


@torch.no_grad()
def top1(network: nn.Module, test: Labelled, read: Callable[[Tensor], Tensor] | None = None) -> float:
    """Percent."""
    outputs = torch.cat([network(part) for part in test[0].split(250)])
    return 100 * float(((read(outputs) if read else outputs).argmax(1) == test[1]).float().mean())


def tasks(cifar: CifarTask, samples: int, scored: int) -> dict[str, Task]:
    """By name."""
    chosen = cifar.train.sample(samples, 1)
    assert chosen.labels is not None
    train = (chosen.tensor(), torch.from_numpy(chosen.labels))
    test = tuple(torch.cat([one[side] for one in cifar.test])[:scored] for side in (0, 1))
    groups = torch.tensor(GROUPS, dtype=torch.int64)
    digits = {split: load(f"digits:{split}") for split in ("train", "test")}
    scaled = {split: (at_32(one.tensor()), torch.from_numpy(one.labels)) for split, one in digits.items()}
    return {
        "corrupted": Task((corrupted(train[0], 1), train[1]), (corrupted(test[0], 2), test[1]), None, lambda y: y),
        "groups": Task((train[0], groups[train[1]]), (test[0], groups[test[1]]), 5, in_groups),
        "digits": Task(scaled["train"], scaled["test"], 10, None),
    }


def corrupted(images: Tensor, seed: int) -> Tensor:
    """In grey, and with noise of a tenth of a standard deviation."""
    grey = images.mean(1, keepdim=True)
    noise = torch.randn(grey.shape, dtype=torch.float32, generator=torch.Generator().manual_seed(seed))
    return (grey + 0.1 * noise).expand(-1, 3, -1, -1).contiguous()


def in_groups(outputs: Tensor) -> Tensor:
    """The largest logit of each group's classes."""
    groups = torch.tensor(GROUPS, dtype=torch.int64)
    return torch.stack([outputs[:, groups == group].amax(1) for group in range(max(GROUPS) + 1)], 1)


def at_32(images: Tensor) -> Tensor:
    """8 x 8 grey pixels as 32 x 32 in three channels, in standard deviations."""
    large = F.interpolate(images, size=32, mode="bilinear", align_corners=False)
    return ((large - large.mean()) / large.std()).expand(-1, 3, -1, -1).contiguous()


def markdown(records: dict[str, Record]) -> str:
    """A row for each way, a column for accuracy and bytes of each task, and from how many tasks on it is smaller."""
    names = list(dict.fromkeys(one["task"] for one in records.values()))
    rows = {(one["task"], one["way"]): one for one in records.values()}
    lines = [f"| | {' | '.join(f'{name}, top-1 | bytes' for name in names)} | tasks |", "|---|" + "---:|" * 7]
    for way in WAYS:
        cells, least = list[str](), list[int]()
        for name in names:
            one, own = rows.get((name, way)), rows.get((name, "own network"))
            cells.append("| " if one is None else f"{one['top1']:.1f} | {one['bytes']:,}")
            if one and own and way not in ("base", "own network") and own["bytes"] > one["bytes"]:
                least.append(math.floor(one["base_bytes"] / (own["bytes"] - one["bytes"])) + 1)
        lines.append(f"| {way} | {' | '.join(cells)} | {max(least) if least else ''} |")
    base = next(iter(records.values()))["base_bytes"]
    return "\n".join([*lines, "", f"The base takes {base:,} bytes."])


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found.add_argument("--shared", type=Path, help="folder of real data and trained weights")
    found.add_argument("--rate", type=float, default=2.0, help="bits a weight of the base")
    found.add_argument("--iterations", type=int, default=40, help="steps of 32 images, of each way")
    found.add_argument("--samples", type=int, default=1500, help="labelled images of CIFAR to learn from")
    found.add_argument("--scored", type=int, default=600, help="test images of CIFAR")
    found.add_argument("--threads", type=int, default=1)
    found.add_argument("--table", action="store_true", help="print the table of what --out holds; run nothing")
    found.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "adapt.json")
    return found


if __name__ == "__main__":
    main()
