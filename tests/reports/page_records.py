"""Records of every kind of page, with numbers that a test can predict."""

from __future__ import annotations

import json
import math
from typing import Any

from reports.conftest import make_run
from reports.test_analyses import ALL, run_of
from reports.test_study import STUDY

__all__ = ["RECORDS"]

LONG = "corank tune bench/models.py:cifar_resnet20 --weights a/very/long/path/of/weights.safetensors --data train.zip"


def trained() -> dict[str, Any]:
    steps = [{"iteration": n, "loss": 2 / n, "norm": 6 + n / 60, "score": 50 + math.sqrt(n)} for n in range(1, 61)]
    return {**make_run("lsq 2"), "command": "train", "search_history": steps, "layers": []}


def pruned() -> dict[str, Any]:
    names = [f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in (0, 1, 2)]
    channels = {name: [16 * (1 + place // 3), 9 + 5 * (place // 3)] for place, name in enumerate(names)}
    found = {
        "method": "perspective", "remove": "0.4", "multiply_adds": [40_551_808, 24_001_280],
        "parameters": [268_346, 171_002], "channels": channels, "left": {"linear": "it gives the network's outputs"},
        "iterations": 60, "drawn": 15, "history": [{"iteration": n, "loss": 1 / n} for n in range(1, 61)],
    }  # fmt: skip
    return {**make_run("perspective 0.4", size=701_000), "command": "prune", "pruned": found, "notes": ["a note."]}


def supernet() -> dict[str, Any]:
    choices = {"resolution": [24, 32], "stages.0.depth": [1, 2], "stages.0.blocks.0.kernel": [3, 5]}
    steps = [{"iteration": n, "loss": 2 / n, "largest": 1.5 / n} for n in range(1, 41)]
    return {
        "format": 1, "command": "supernet train", "model": "elastic:10", "label": "supernet W4A4", "bits": 4,
        "iterations": 40, "seconds": 14.2, "search_history": steps, "reproduce": "corank supernet train elastic:10",
        "supernet": {"bits": 4, "inherited": None, "iterations": 40, "choices": choices},
    }  # fmt: skip


def study() -> dict[str, Any]:
    """That of test_study, with settings and commands as long as they are, and many trials close to each other."""
    trials = json.loads(json.dumps(STUDY["trials"]))
    for place in range(5, 24):
        score, size = 89.0 + (place % 7) / 10, 50_000 + 400 * (place % 11)
        trials.append({**trials[0], "number": place, "rungs": [{"score": score, "error": 0.2, "size_bytes": size}],
                       "command": f"{LONG} --configuration {place}", "configuration": {
                           "codes": "icquant", "adapter_bits": 8, "search": "cora", "rounder": "qronos",
                           "distilled": True, "codes_move": False, "edges": "own", "activations": None}})  # fmt: skip
    return {**STUDY, "trials": trials, "front": [0, 8, 2]}


def subnets() -> dict[str, Any]:
    trials = [
        {"number": place, "state": "complete", "configuration": {"bits": 4 - place % 3, "resolution": 24},
         "rungs": [{"score": 60.0 + place, "size_bytes": 900, "multiply_adds": 1_000_000 * (place + 1)}],
         "command": f"corank supernet extract 4.safetensors --subnet elastic:10,width={place}"}
        for place in range(4)
    ]  # fmt: skip
    return {"model": "elastic:10", "trials": trials, "by": "multiply_adds", "front": [0, 1, 2, 3], "best": 3,
            "space": {"name": "subnets"}, "goal": {"size": None}}  # fmt: skip


def compared() -> list[dict[str, Any]]:
    named = (("nearest 3", 3, 45.25, 110_000), ("fast 2+0.4", 2, 73.0, 92_400), ("fast 3+0.2", 3, 80.25, 120_500))
    return [
        {**make_run(*one), "layers": [], "search_history": [], "reproduce": f"corank quantize net --label '{one[0]}'"}
        for one in named
    ]


RECORDS: dict[str, list[dict[str, Any]]] = {
    "study": [study()],
    "subnets": [subnets()],
    "quantize": [{**make_run(), "layers": [*make_run()["layers"][:5], *make_run()["layers"][-1:]]}],
    "train": [trained()],
    "comparison": compared(),
    "analyse": [run_of(one) for one in ALL.values()],
    "prune": [pruned()],
    "supernet": [supernet()],
}
