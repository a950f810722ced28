"""A vision transformer on CIFAR-10 (JPEG) at few bits of weights and inputs: OFQ, parts of it, and no training.

    python bench/ofq.py --shared DIR [--seeds 1] [--iterations 1000] [--batch 128] [--only 'ofq-*'] [--out results.json]
    python bench/ofq.py --out results.json --table

Three parts are taken out of OFQ in turn: the annealing ("stats"), the scale that is a statistic ("lsq"), and the
reparametrized queries and keys ("products": plain attention whose operands are rounded alike; "at equal bytes" its
queries and keys have the bits that make up for the larger weight; "operands in float": plain attention, its products
not rounded). Oscillations are counted at every step. Finished runs are kept in the output file and not run again.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

import corank
from corank.codecs import StatsQ
from corank.data import ImageSet, Preprocessing, load
from corank.models.weights import load_weights
from corank.training.callbacks import Confidence, Meters
from corank.training.recipes import RECIPES

sys.path.insert(0, str(Path(__file__).parent))
from training import decoded
from training_runs import YARDSTICKS, Case, Record, options_of, run_all, run_case

WIDTHS = (4, 3, 2)
HEADS = 3


def cases() -> dict[str, Case]:
    """All rows, float first."""
    found = {"float": Case(YARDSTICKS["float"].replaced(optimizer=RECIPES["ofq"](4, 4).optimizer))}
    for bits in WIDTHS:
        name = f"w{bits}a{bits}"
        found[f"quantize {name}"] = Case(None, {"bits": bits, "activations": bits})
        whole = RECIPES["ofq"](bits, bits).replaced(callbacks=(Confidence(), Meters(1)))
        learned = RECIPES["lsq"](bits, bits).weights
        found[f"ofq-{name}"] = Case(whole)
        found[f"ofq-{name}, stats"] = Case(whole.replaced(callbacks=(Meters(1),)))
        found[f"ofq-{name}, lsq"] = Case(whole.replaced(callbacks=(Meters(1),), weights=learned))
        plain = whole.replaced(structure=("products",))
        found[f"ofq-{name}, products"] = Case(plain)
        # query and key have 2 C^2 weights together, the product HEADS C^2
        more = {"*.query": StatsQ((HEADS * bits + 1) // 2), "*.key": StatsQ(HEADS * bits // 2)}
        found[f"ofq-{name}, products at equal bytes"] = Case(plain, {"layers": more})
        found[f"ofq-{name}, operands in float"] = Case(whole.replaced(structure=()))
    return found


def network(shared: Path) -> nn.Module:
    """The vision transformer of 2.7 million parameters, trained."""
    from timm.models.vision_transformer import VisionTransformer

    sizes = {"img_size": 32, "patch_size": 4, "embed_dim": 192, "depth": 6, "num_heads": HEADS, "num_classes": 10}
    model = VisionTransformer(**sizes).eval()  # pyright: ignore[reportArgumentType]
    load_weights(model, shared / "models/cifar10_vit_fp16.safetensors")
    return model


def images(shared: Path, part: str, labelled: bool) -> ImageSet:
    preprocessing = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return load(str(shared / f"data/cifar10_jpeg_{part}.zip"), preprocessing, labelled=labelled)


def oscillations(model: nn.Module) -> Record:
    """Codes that moved against the way they moved last: over all steps, and over the last tenth of them."""
    run = model.__dict__.get("corank_run")
    counts = [] if run is None else [entry["oscillations"] for entry in run.history if "oscillations" in entry]
    return {"oscillations": sum(counts), "oscillations_last": sum(counts[-len(counts) // 10 :])} if counts else {}


def parser() -> argparse.ArgumentParser:
    found = options_of(__doc__.splitlines()[0], "build/ofq.json")
    found.set_defaults(seeds=1)
    found.add_argument("--iterations", type=int, default=1000)
    found.add_argument("--batch", type=int, default=128)
    found.add_argument("--samples", type=int, help="calibration samples")
    found.add_argument("--images", type=int, help="of training, to try the script")
    found.add_argument("--scored", type=int, default=10_000, help="test images")
    found.add_argument("--device", default="cpu")
    return found


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    group = f"vit, {options.iterations} x {options.batch}, {options.scored} images"
    held: list[tuple[nn.Module, ImageSet, list[Any]]] = []

    def run(case: Case, seed: int) -> Record:
        if not held:  # tables and lists need none
            train, test = images(options.shared, "train", False), images(options.shared, "test", True)
            train = train.sample(options.images, 0) if options.images else decoded(train)
            held.append((network(options.shared), train, list(test.sample(options.scored, 0).batches(500))))
        model, train, test = held[0]

        def score(small: nn.Module) -> Record:
            found = corank.evaluate(small, test, model, device=options.device)
            return {"top1": found.top1, "agreement": found.agreement, "kl": found.kl, **oscillations(small)}

        own = replace(case, given={"samples": options.samples, **case.given})
        given = {"seed": seed, "device": options.device}
        if case.recipe is not None:
            given |= {"iterations": options.iterations, "batch_size": options.batch}
        return run_case(own, model, train, score, given)

    run_all(options, cases(), group, run)


if __name__ == "__main__":
    main()
