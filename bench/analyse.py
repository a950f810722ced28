"""What `corank analyse` finds in ResNet-20 (CIFAR-10, JPEG), and what it is good for.

    python bench/analyse.py --shared DIR [--only lipschitz,ranks] [--out bench/results/analyse.json]
        [--reports DIR]

Each of the four questions, of the float network beside one of 3 bits (rounded to nearest, adapters of 0.25 bits a
weight, ranks by greedy), with CPU seconds; and how well norms and errors foretell which layers hurt (rank
correlations).
ranks: 2 bits and 0.25 for adapters, ranks by the directions that layers use (interaction basis, or principal),
against uniform ones and the greedy search, all of the same budget: KL and agreement with the float network on 2,000
test images.
dynamics: 60 steps of 64 images, 2 bits, labels that are right or drawn at random: what moves the layers' norms.
Parts that are in the output file are not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import corank
from corank.data import ImageSet, load_samples
from corank.models import resolve
from corank.reports import write_report
from corank.training.callbacks import OperatorNorms
from corank.training.recipes import RECIPES
from corank.verbs.analyse import ANALYSES

PARTS = (*ANALYSES, "ranks", "dynamics")
ROOT = Path(__file__).parent


class Task:
    """The network, its images, and the quantized one."""

    def __init__(self, shared: Path) -> None:
        where = f"{ROOT / 'models.py'}:cifar_resnet20"
        self.source = resolve(where, weights=shared / "models" / "cifar10_resnet20.safetensors")
        self.model: nn.Module = self.source.model
        self.train, self.test = (
            load_samples(str(shared / "data" / f"cifar10_jpeg_{part}.zip"), self.source.preprocessing)
            for part in ("train", "test")
        )

    def quantized(self, bits: int, search: Any = "greedy", **more: Any) -> nn.Module:
        """To nearest, with adapters of 0.25 bits a weight."""
        return corank.quantize(
            self.model, self.train, bits=bits, preset="nearest", budget=0.25, search=search, samples=256, **more
        )


def question(what: str, task: Task, reports: Path | None) -> dict[str, Any]:
    small, begun = task.quantized(3), time.process_time()
    found = corank.analyse(task.model, task.test, what, quantized=small)
    done: dict[str, Any] = {**found, "cpu_seconds": time.process_time() - begun}
    if what == "lipschitz":
        run: Any = small.corank_run
        done["foretold"] = _foretold(found, {name: one.relative_output_error for name, one in run.layers.items()})
    if reports is not None:
        run = {"format": 1, "command": "analyse", "model": "ResNet-20, CIFAR-10", "version": corank.__version__}
        write_report(reports / f"{what}.html", [{**run, "analysis": found}])
    return done


def _foretold(found: Mapping[str, Any], errors: Mapping[str, float]) -> dict[str, float]:
    """Rank correlations of each layer's harm with what could foretell it, of the layers that have 3 bits."""
    layers = [one for one in found["layers"] if one["bits"] == 3]
    harm = [one["harm"] for one in layers]
    guesses = {
        "norm": [one["norm"] for one in layers],
        "residual": [one["residual"] for one in layers],
        "residual over norm": [one["residual"] / one["norm"] for one in layers],
        "output error": [errors[one["name"]] for one in layers],
        "bound before the layer": [found["before"][one["name"]] for one in layers],
    }
    return {name: _rank_correlation(guess, harm) for name, guess in guesses.items()}


def _rank_correlation(one: list[float], other: list[float]) -> float:
    ranks = np.stack([np.argsort(np.argsort(values)) for values in (one, other)]).astype(np.float64)
    ranks -= ranks.mean(1, keepdims=True)
    return float((ranks[0] * ranks[1]).sum() / np.sqrt((ranks**2).sum(1).prod()))


def ranks(task: Task, _reports: Path | None) -> dict[str, Any]:
    scored = task.test.sample(2000, 1)
    assert isinstance(scored, ImageSet)
    found: dict[str, Any] = {}

    def score(name: str, small: nn.Module) -> None:
        result = corank.evaluate(small, scored, task.model)
        run: Any = small.corank_run
        found[name] = {
            "kl": result.kl, "agreement": result.agreement, "top1": result.top1, "equivalent_bits": run.equivalent_bits,
            "ranks": {layer: plan.rank for layer, plan in run.plan.layers.items() if plan.rank},
        }  # fmt: skip

    uniform = task.quantized(2, corank.UniformRanks())
    score("uniform", uniform)
    score("greedy", task.quantized(2))
    run: Any = uniform.corank_run
    used = corank.analyse(task.model, task.test, "interaction", samples=64)
    for key in ("interaction", "principal"):
        needed = {one["name"]: one[key] for one in used["layers"]}
        plan = run.plan.with_ranks(_ranks_by(needed, run))
        score(f"by {key}", corank.quantize(task.model, task.train, plan=plan, samples=256))
    return found


def _ranks_by(needed: Mapping[str, int], run: Any) -> dict[str, int]:
    """Ranks in proportion to the directions that layers use, of the bits that the uniform ones take."""
    adapted = {name: run.layers[name].shape for name, plan in run.plan.layers.items() if plan.rank}

    def ranks_of(factor: float) -> dict[str, int]:
        return {name: min(shape[1], shape[2], round(factor * needed[name])) for name, shape in adapted.items()}

    def bits(given: Mapping[str, int]) -> int:  # a byte a number, and a scale of 16 bits for each side of a direction
        return sum(rank * (8 * (adapted[name][1] + adapted[name][2]) + 32) for name, rank in given.items())

    room = bits({name: run.plan.layers[name].rank for name in adapted})
    factors = np.linspace(0, 2, 4001)
    return ranks_of(max(factor for factor in factors if bits(ranks_of(factor)) <= room))


def dynamics(task: Task, _reports: Path | None) -> dict[str, Any]:
    recipe = replace(RECIPES["stats"](2, None), loss="labels", iterations=60, batch_size=64)
    images = task.train.sample(4000, 0)
    assert isinstance(images, ImageSet) and images.labels is not None
    found: dict[str, Any] = {}
    for name in ("right labels", "random labels"):
        labels = images.labels if name == "right labels" else np.random.RandomState(0).permutation(images.labels)
        begun = time.process_time()
        trained = corank.train(
            task.model, replace(images, labels=labels), recipe, callbacks=[OperatorNorms(10)], samples=256
        )
        looks = [step for step in trained.corank_run.history if "log_norms" in step]  # pyright: ignore
        found[name] = {
            "cpu_seconds": time.process_time() - begun,
            "log_norms": [step["log_norms"] for step in looks],
            **{key: sum(step[key] for step in looks[1:]) for key in ("norm_gradient", "norm_curvature")},
            "norm_noise": sum(step["norm_noise"] ** 2 for step in looks[1:]) ** 0.5,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "analyse.json")
    parser.add_argument("--reports", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    task, done = Task(given.shared), json.loads(given.out.read_text()) if given.out.exists() else {}
    run: dict[str, Callable[[Task, Path | None], dict[str, Any]]] = {
        **{what: partial(question, what) for what in ANALYSES}, "ranks": ranks, "dynamics": dynamics,
    }  # fmt: skip
    for part in given.only.split(","):
        if part not in done:
            done[part] = run[part](task, given.reports)
            given.out.write_text(json.dumps(done, indent=1) + "\n")
            print(part, "done", flush=True)


if __name__ == "__main__":
    sys.exit(main())
