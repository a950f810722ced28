"""A 90 %-sparse ResNet-20 from adversarial training, with and without the condition-number term, by the same steps.

    python bench/robust.py --shared DIR [--steps 150] [--batch 64] [--seeds 3] [--factor 0.05] [--out FILE]

Scored on test images drawn once: clean, under FGSM and under PGD; condition numbers are those of the weights, layer by
layer. Finished runs are kept in the output file and not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import corank
from corank.attacks import Attack
from corank.training.callbacks.condition_numbers import condition_number
from corank.training.penalties import ConditionNumber, TransformedL1
from corank.training.recipes import chosen_recipe

sys.path.insert(0, str(Path(__file__).parent))
from cifar_task import CifarTask

ATTACKS = ("fgsm:2/255", "pgd:2/255,10")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def arms(factor: float) -> dict[str, tuple[Any, ...]]:
    """The penalties of each way of training."""
    return {
        "sparse, transformed l1": (TransformedL1(),),
        "sparse, transformed l1, condition number": (TransformedL1(), ConditionNumber(factor)),
    }


def scored(model: nn.Module, batches: list[Any]) -> dict[str, Any]:
    """Accuracies, zeros and condition numbers."""
    attacks = [Attack.of(one).seen_by(MEAN, STD) for one in ATTACKS]
    found = corank.evaluate(model, batches, attacks=attacks)
    weights = [m.weight.detach() for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    numbers = [condition_number(one.reshape(1, len(one), -1)) for one in weights]
    inner = weights[1:-1]
    logs = [math.log10(one) for one in numbers]
    return {
        "clean": found.top1,
        **found.attacked,
        "zeros among the inner weights": sum(int((w == 0).sum()) for w in inner) / sum(w.numel() for w in inner),
        "condition numbers, geometric mean": round(10 ** (sum(logs) / len(logs)), 2),
        "condition numbers": [round(one, 2) for one in numbers],
    }


def drawn(batches: list[Any], count: int) -> list[Any]:
    """So many test images of all classes, which the set has one after the other, in batches of at most 500."""
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    places = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count]
    return list(zip(images[places].split(500), labels[places].split(500), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--factor", type=float, default=ConditionNumber().weight)
    parser.add_argument("--images", type=int, default=1000, help="test images that are scored")
    parser.add_argument("--train", type=int, default=50_000, help="training images that are drawn from")
    parser.add_argument("--only", action="append", help="names of ways of training")
    parser.add_argument("--out", type=Path, default=Path("build/robust.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = CifarTask.of(options.shared, 20, labelled=True)
    train = task.train.sample(options.train, 0)
    batches = drawn(task.test, options.images)
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    if "float, as it was" not in results:
        results["float, as it was"] = scored(task.model, batches)
    print("float, as it was", results["float, as it was"], flush=True)
    recipe = chosen_recipe("robust").replaced(iterations=options.steps, batch_size=options.batch)
    for seed in range(options.seeds):
        for name, penalties in arms(options.factor).items():
            if options.only and name not in options.only:
                continue
            key = f"{name}/{options.factor:g}/{options.steps} x {options.batch}/{seed}"
            if key in results:
                continue
            started = time.process_time()
            model = corank.train(task.model, train, recipe.replaced(penalties=penalties), seed=seed)
            seconds = time.process_time() - started
            results[key] = {**scored(model, batches), "cpu_seconds": round(seconds, 1)}
            print(key, results[key], flush=True)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
