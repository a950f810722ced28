"""CIFAR-10 in two steps of five classes: what is remembered of the first five, in float and at 4 bits.

    python bench/incremental.py --shared DIR [--per-class 20] [--new 500] [--seed 0] [--old FILE] [--out FILE]
    python bench/incremental.py --table

A ResNet of one block a stage learns five classes, then the five others beside exemplars of the first. All variants of
the second step start at the same network and see the same samples: labels alone, distillation beside them, rows of both
signs and rows that stay positive, each before and after the rows are aligned. Finished variants are kept.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import corank
from corank.data import ImageSet
from corank.training.recipe import Optimizer, Recipe
from corank.training.recipes import chosen_recipe
from corank.verbs.class_head import widened

sys.path.insert(0, str(Path(__file__).parent))
from cifar_task import CifarTask
from models import CifarResNet
from training_runs import Kept, Record

KNOWN = 5
VARIANTS: dict[str, tuple[str, bool, bool]] = {
    "float, positive rows": ("weight-aligning", True, False),
    "4 bits, positive rows": ("weight-aligning-4bit", True, False),
    "4 bits, positive rows, taught by 4 bits": ("weight-aligning-4bit", True, True),
    "float": ("weight-aligning", False, False),
    "4 bits": ("weight-aligning-4bit", False, False),
    "float, labels alone": ("", False, False),
}
"""Recipe, whether rows stay positive, and whether the teacher has 4 bits; without a recipe there is no teacher."""


def small_network() -> nn.Module:
    """Eight layers; the last has five rows and no bias."""
    network = CifarResNet(1)
    network.linear = nn.Linear(64, KNOWN, bias=False)
    return network


def of_classes(images: ImageSet, first: bool, each: int | None = None) -> ImageSet:
    """The images of the first five classes, or of the others; of each class at most so many."""
    assert images.labels is not None
    classes = range(KNOWN) if first else range(KNOWN, 2 * KNOWN)
    drawn = np.random.RandomState(0).permutation(len(images))
    own = [drawn[images.labels[drawn] == one][:each] for one in classes]
    return images.select(np.sort(np.concatenate(own)))


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


def labels_alone(model: nn.Module, data: ImageSet, exemplars: ImageSet, recipe: Recipe, seed: int) -> nn.Module:
    """The second step without distillation: the cross entropy of all classes."""
    assert data.labels is not None and exemplars.labels is not None
    images = torch.cat([exemplars.tensor(), data.tensor()])
    labels = torch.from_numpy(np.concatenate([exemplars.labels, data.labels]))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))  # norms see the first ones
    student = widened(model, "linear", KNOWN, seed)
    return corank.train(student, (images[order], labels[order]), recipe.replaced(loss="labels"), seed=seed)


def old_network(first: ImageSet, options: argparse.Namespace) -> nn.Module:
    """What knows the first five classes, trained from scratch, or read where it is kept."""
    if options.old is not None and options.old.exists():
        network = small_network().eval()
        network.load_state_dict(load_file(options.old))
        return network
    scratch = Recipe(
        weights=None, edge=None, edge_inputs=None, loss="labels", start="scratch", iterations=options.first_steps,
        batch_size=options.batch, optimizer=Optimizer("sgd", rate=0.1, decay=5e-4),
    )  # fmt: skip
    found = corank.train(small_network(), first, scratch, seed=options.seed)
    if options.old is not None:
        save_file(found.state_dict(), options.old)
    return found


def run(task: CifarTask, options: argparse.Namespace, kept: Kept, key: str) -> None:
    """Both steps, a record for each variant of the second."""
    first, second = of_classes(task.train, True), of_classes(task.train, False, options.new)
    old = old_network(first, options)
    coded = corank.quantize(old, first, bits=4, budget=0.0, samples=400, seed=options.seed)
    exemplars = corank.choose_exemplars(old, first, options.per_class)
    found: Record = kept.records.get(key, {})
    if "old networks" not in found:
        known = [(images[labels < KNOWN], labels[labels < KNOWN]) for images, labels in task.test]
        known = [batch for batch in known if len(batch[1])]
        found["old networks"] = {
            name: corank.evaluate(one, known).top1 for name, one in (("float", old), ("4 bits", coded))
        }
        kept.put(key, found)
    for name, (recipe, positive, taught_by_codes) in VARIANTS.items():
        if name in found:
            continue
        began = time.process_time()
        if recipe:
            network = corank.train_classes(
                old, second, exemplars, recipe, teacher=coded if taught_by_codes else old, align=False,
                positive=positive, iterations=options.steps, batch_size=options.batch, seed=options.seed,
            )  # fmt: skip
        else:
            plain = chosen_recipe("weight-aligning").replaced(iterations=options.steps, batch_size=options.batch)
            network = labels_alone(old, second, exemplars, plain, options.seed)
        seconds = round(time.process_time() - began, 1)
        aligned = corank.align_classes(network, KNOWN)
        found[name] = {
            "before": scored(network, task.test), "aligned": scored(aligned, task.test), "cpu_seconds": seconds,
        }  # fmt: skip
        kept.put(key, found)
        print(name, found[name], flush=True)


def markdown(records: dict[str, Record]) -> str:
    """A row for each variant, before and after its rows are aligned."""
    shown = ("old classes", "new classes", "all classes", "called new")
    lines = [f"| | {' | '.join(shown)} | length of old and new rows |", f"|---|{'--:|' * (len(shown) + 1)}"]
    for key, variants in records.items():
        lines.append(f"| **{key}** | | | | | |")
        for name, one in variants.items():
            if "before" not in one:
                continue
            before, after = one["before"], one["aligned"]
            cells = [f"{before[part]:.1f} to {after[part]:.1f}" for part in shown]
            lengths = [
                f"{side['length of old rows']:.2f}, {side['length of new rows']:.2f}" for side in (before, after)
            ]
            lines.append(f"| {name} | {' | '.join(cells)} | {' to '.join(lengths)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, help="folder of real data")
    parser.add_argument("--first-steps", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--new", type=int, default=500, help="images of each new class; as in the paper 25 exemplars'")
    parser.add_argument("--per-class", type=int, default=20, help="exemplars of each known class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--old", type=Path, help="a file that keeps the network of the first five classes")
    parser.add_argument("--images", type=int, help="of each set, to try the script")
    parser.add_argument("--table", action="store_true", help="print the table of what --out holds; run nothing")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "incremental.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = Kept(options.out)
    if options.table:
        print(markdown(kept.records))
        return
    task = CifarTask.of(options.shared, 20, labelled=True, images=options.images)
    steps = f"{options.first_steps} and {options.steps} steps of {options.batch}"
    samples = f"{options.new} new images and {options.per_class} exemplars a class"
    run(task, options, kept, f"{steps}, {samples}, seed {options.seed}")


if __name__ == "__main__":
    main()
