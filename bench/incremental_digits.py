"""Digits in two steps of five classes, in a minute: what weight aligning does to old and new classes, seed by seed.

python bench/incremental_digits.py [--steps 100] [--per-class 5] [--seeds 5] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import corank
from corank.data import ImageSet, load
from corank.training.recipe import Optimizer, Recipe

KNOWN = 5
SCRATCH = Recipe(
    weights=None, edge=None, edge_inputs=None, loss="labels", start="scratch", iterations=150, batch_size=64,
    augment="none", optimizer=Optimizer(rate=5e-3),
)  # fmt: skip


def network() -> nn.Module:
    """Digits (N, 1, 8, 8) to five logits, without biases in the last layer."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, KNOWN, bias=False),
    ).eval()  # fmt: skip


def scored(model: nn.Module, test: ImageSet) -> dict[str, float]:
    """Percent right of old and new classes, and percent of images that are called new."""
    with torch.no_grad():
        given = model(test.tensor()).argmax(1).numpy()
    assert test.labels is not None
    right, old = given == test.labels, test.labels < KNOWN
    new = given >= KNOWN
    shares = {"old": right[old].mean(), "new": right[~old].mean(), "all": right.mean(), "called new": new.mean()}
    return {name: round(100 * float(share), 2) for name, share in shares.items()}


def run(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Both steps by one seed."""
    train, test = load("digits:train"), load("digits:test")
    assert train.labels is not None
    first, second = (train.select(np.flatnonzero((train.labels < KNOWN) == known)) for known in (True, False))
    old = corank.train(network(), first, SCRATCH, seed=seed)
    coded = corank.quantize(old, first, bits=4, budget=0, seed=seed)
    exemplars = corank.choose_exemplars(old, first, options.per_class)
    found: dict[str, Any] = {}
    for name, recipe, teacher in (
        ("float", "weight-aligning", old),
        ("4 bits", "weight-aligning-4bit", old),
        ("4 bits, taught by 4 bits", "weight-aligning-4bit", coded),
    ):
        given = corank.train_classes(
            old,
            second,
            exemplars,
            recipe,
            teacher=teacher,
            align=False,
            positive=not options.signed,
            iterations=options.steps,
            batch_size=64,
            seed=seed,
        )
        found[name] = scored(given, test)
        found[f"{name}, aligned"] = scored(corank.align_classes(given, KNOWN), test)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--per-class", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--signed", action="store_true", help="rows of both signs, instead of such as stay positive")
    parser.add_argument("--out", type=Path, default=Path("build/incremental_digits.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for seed in range(options.seeds):
        rows = ", rows of both signs" if options.signed else ""
        results[f"{options.steps} steps of 64, {options.per_class} exemplars a class{rows}/{seed}"] = run(options, seed)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    for name in next(iter(results.values())):
        parts = ("old", "new", "all", "called new")
        means = {part: np.mean([one[name][part] for one in results.values()]) for part in parts}
        print(f"{name:<36}", {part: round(float(mean), 1) for part, mean in means.items()})


if __name__ == "__main__":
    main()
