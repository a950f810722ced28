"""Networks on CIFAR-10 (JPEG), ResNet-20 first, trained at low bits: every method on the same network, data and steps.

    python bench/training.py --shared DIR [--network 20] [--seeds 3] [--only 'stats-*'] [--long] [--out results.json]
    python bench/training.py --out results.json --table

The first rows are the float network given the same steps, data and loss: the JPEG images teach it, too. "Short" is 400
steps of 128 images, ``--long`` 2,300 of 256. Images are decoded once. Scored on all 10,000 test images; bytes are those
of the file. Finished runs are kept in the output file and not run again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from torch import nn

import corank
from corank.codecs import Binary, StatsQ, Ternary
from corank.data import ImageSet
from corank.data.arrays import TensorSource
from corank.training.recipe import Optimizer, Schedule
from corank.training.recipes import RECIPES
from corank.training.recipes.rate import rate

sys.path.insert(0, str(Path(__file__).parent))
from cifar_task import NETWORKS, OTHERS, CifarTask
from training_runs import YARDSTICKS, Case, Record, named, options_of, run_all, run_case

METHODS = {
    "stats": ("2bit", "1bit", "w4a4", "w3a3", "w2a2", "w1a4"),
    "ternary": ("2bit",),
    "lsq": ("2bit", "1bit", "w4a4", "w3a3", "w2a2", "w1a4"),
    "cga": ("2bit", "w2a2"),
    "adamp": ("2bit",),
    "binary": ("1bit", "w1a4", "w1a1"),
    "binary-relax": ("1bit", "2bit"),
    "bcgd": ("1bit", "2bit", "w1a4"),
    "roq": ("1bit", "w1a4"),
    "parq": ("1bit", "2bit", "3bit"),
    "dorefa": ("2bit", "w4a4", "w2a2"),
    "pact": ("w4a4", "w2a2"),
    "power-of-two": ("3bit", "4bit"),
    "apot": ("2bit", "3bit", "w4a4"),
    "direct": ("1bit", "2bit", "w2a2"),
    "bitat": ("1bit",),
    "dense-shift": ("2bit", "3bit"),
    "s3": ("3bit",),
    "random-bias": ("1bit",),
    "refine": ("2bit", "1bit"),
}
"""Methods and their bits; of those that end in a float network see :data:`ENDING_IN_FLOAT`."""

ENDING_IN_FLOAT = ("gradient-l1", "compander")
WIDTHS = (8, 6, 5, 4, 3)
SIZES: dict[int | str, tuple[int, ...]] = {
    20: (34_000, 21_000, 15_000, 13_500, 10_000),
    56: (70_000, 40_000, 21_000, 15_000),
    "mobilenet": (60_000,),
    "vit": (300_000,),
}  # bytes of a file whose size is in the loss


def cases(network: int | str = 20) -> dict[str, Case]:
    """All rows, float first."""
    found = {name: Case(recipe) for name, recipe in YARDSTICKS.items()}
    found["float, labels"] = Case(YARDSTICKS["float, labels"], widths=WIDTHS)
    rates = {f"rate {size / 1000:g}KB": Case(rate(0.5), {"size": size}) for size in SIZES[network]}
    methods = named(METHODS)
    for codec in (StatsQ(2), Ternary(), Binary()):
        found[f"quantize {type(codec).__name__.lower()}"] = Case(None, {"codec": codec, "search": "uniform"})
    found["stats-2bit, 0 steps"] = Case("stats-2bit", {"iterations": 0})  # scores what quantize scores
    found |= methods | rates
    for name in ENDING_IN_FLOAT:
        if name in RECIPES:
            found[name] = Case(name, widths=WIDTHS)
    shifts = [name for name in methods if name.startswith(("dense-shift-", "s3-"))]
    for name in shifts:  # our extension: from the float network's codes, distilled
        method, bits = name.rsplit("-", 1)
        published = RECIPES[method](int(bits[0]), None)
        found[f"{name} from codes"] = Case(
            published.replaced(loss="distil", start="codes", optimizer=Optimizer(), schedule=Schedule(), batch_size=128)
        )
    if "random-bias" in RECIPES:  # the same with zeros for biases
        found["random-bias-1bit, b = 0"] = Case(RECIPES["random-bias"](1, None).replaced(callbacks=()))
    return found


CASES = cases()


def decoded(images: ImageSet) -> ImageSet:
    """The same set, its images in memory."""
    return ImageSet(TensorSource(images.tensor()), images.preprocessing, images.labels, images.class_names)


def parser() -> argparse.ArgumentParser:
    found = options_of(__doc__.splitlines()[0], "build/training.json")
    found.add_argument("--network", type=_network, choices=(*NETWORKS, *OTHERS), default=20)
    found.add_argument("--long", action="store_true", help="2,300 steps of 256 images")
    found.add_argument("--iterations", type=int)
    found.add_argument("--batch", type=int)
    found.add_argument("--device", default="cpu")
    found.add_argument("--images", type=int, help="of training and of test, to try the script")
    return found


def _network(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    iterations = options.iterations or (2300 if options.long else 400)
    batch = options.batch or (256 if options.long else 128)
    name = options.network if isinstance(options.network, str) else f"resnet{options.network}"
    group = f"{name}, {iterations} x {batch}"
    task: list[CifarTask] = []
    data: list[ImageSet] = []

    def score(model: nn.Module) -> Record:
        found = corank.evaluate(model, task[0].test, task[0].model, device=options.device)
        return {"top1": found.top1, "agreement": found.agreement, "kl": found.kl}

    def run(case: Case, seed: int) -> Record:
        if not data:  # tables and lists need none
            task.append(CifarTask.of(options.shared, options.network, labelled=True, images=options.images))
            data.append(decoded(task[0].train))
        given = {"seed": seed, "iterations": iterations, "batch_size": batch, "device": options.device}
        return run_case(case, task[0].model, data[0], score, given)

    run_all(options, cases(options.network), group, run)


if __name__ == "__main__":
    main()
