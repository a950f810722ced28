"""CIFAR-10 in two steps of five classes: what is remembered of the first five, in float and at 4 bits.

    python bench/incremental.py --shared DIR [--steps 300] [--per-class 40] [--seeds 1] [--out FILE]

A ResNet of one block a stage learns five classes, then the five others beside exemplars of the first. All variants of
the second step start at the same network and see the same samples: labels alone, distillation beside them, and both
before and after the rows are aligned. Finished runs are kept in the output file and not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import corank
from corank.data import ImageSet
from corank.training.recipe import Optimizer, Recipe
from corank.training.recipes import chosen_recipe
from corank.verbs.class_head import widened

sys.path.insert(0, str(Path(__file__).parent))
from cifar_task import CifarTask
from models import CifarResNet

KNOWN = 5


def small_network() -> nn.Module:
    """Eight layers; the last has five rows and no bias."""
    network = CifarResNet(1)
    network.linear = nn.Linear(64, KNOWN, bias=False)
    return network


def of_classes(images: ImageSet, first: bool) -> ImageSet:
    """The images of the first five classes, or of the others."""
    assert images.labels is not None
    return images.select(np.flatnonzero((images.labels < KNOWN) == first))


def scored(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Percent right of old, new and all classes, percent of images that are called new, and the rows' mean lengths."""
    with torch.no_grad():
        given = torch.cat([model(images).argmax(1) for images, _ in batches])
    labels = torch.cat([one for _, one in batches])
    right, old = (given == labels).double(), labels < KNOWN
    lengths = model.linear.weight.detach().norm(dim=1)
    found = {
        "old classes": right[old].mean(), "new classes": right[~old].mean(), "all classes": right.mean(),
        "called new": (given >= KNOWN).double().mean(),
    }  # fmt: skip
    shown = {name: round(100 * float(value), 2) for name, value in found.items()}
    return {
        **shown,
        "length of old rows": float(lengths[:KNOWN].mean()),
        "length of new rows": float(lengths[KNOWN:].mean()),
    }


def labels_alone(model: nn.Module, data: ImageSet, exemplars: ImageSet, recipe: Recipe) -> nn.Module:
    """The second step without distillation: the cross entropy of all classes."""
    assert data.labels is not None and exemplars.labels is not None
    images = torch.cat([exemplars.tensor(), data.tensor()])
    labels = torch.from_numpy(np.concatenate([exemplars.labels, data.labels]))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))  # norms see the first ones
    student = widened(model, "linear", KNOWN, 0)
    return corank.train(student, (images[order], labels[order]), recipe.replaced(loss="labels"))


def run(task: CifarTask, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Both steps by one seed."""
    first, second = of_classes(task.train, True), of_classes(task.train, False)
    scratch = Recipe(
        weights=None, edge=None, edge_inputs=None, loss="labels", start="scratch",
        iterations=options.first_steps, batch_size=options.batch, optimizer=Optimizer("sgd", rate=0.1, decay=5e-4),
    )  # fmt: skip
    old = corank.train(small_network(), first, scratch, seed=seed)
    known = [(images[labels < KNOWN], labels[labels < KNOWN]) for images, labels in task.test]
    coded_old = corank.train(
        old, first, "lsq-4bit", iterations=options.first_steps // 4, batch_size=options.batch, seed=seed
    )
    exemplars = corank.choose_exemplars(old, first, options.per_class)
    found: dict[str, Any] = {
        "old network, its five classes": corank.evaluate(old, known).top1,
        "old network at 4 bits, its five classes": corank.evaluate(coded_old, known).top1,
    }
    steps = {"iterations": options.steps, "batch_size": options.batch, "seed": seed, "align": False}
    started = time.process_time()
    plain = chosen_recipe("weight-aligning").replaced(iterations=options.steps, batch_size=options.batch)
    networks = {"float, labels alone": labels_alone(old, second, exemplars, plain)}
    networks["float, distilled"] = corank.train_classes(old, second, exemplars, **steps)
    networks["4 bits, distilled"] = corank.train_classes(old, second, exemplars, "weight-aligning-4bit", **steps)
    networks["4 bits, distilled from the old network at 4 bits"] = corank.train_classes(
        old, second, exemplars, "weight-aligning-4bit", teacher=coded_old, **steps
    )
    for name, network in networks.items():
        found[name] = scored(network, task.test)
        print(name, found[name], flush=True)
        found[f"{name}, aligned"] = scored(corank.align_classes(network, KNOWN), task.test)
    found["cpu_seconds of the second steps"] = round(time.process_time() - started, 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--first-steps", type=int, default=400)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--scored", type=int, default=10_000, help="test images")
    parser.add_argument("--per-class", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--images", type=int, help="of each set, to try the script")
    parser.add_argument("--out", type=Path, default=Path("build/incremental.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = CifarTask.of(options.shared, 20, labelled=True, images=options.images)
    task = replace(task, test=task.test[: max(1, options.scored // 500)])
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    for seed in range(options.seeds):
        steps = f"{options.first_steps} and {options.steps} steps of {options.batch}"
        key = f"{steps}, {options.per_class} exemplars a class/{seed}"
        if key in results:
            continue
        results[key] = run(task, options, seed)
        print(key, json.dumps(results[key], indent=1), flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
