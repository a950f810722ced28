"""A training that is killed anywhere, and started again, ends in the identical file."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from layers.tiny_vit import timm_vit
from torch import Tensor, nn

import corank
from corank.storage.artifact import serialized
from corank.storage.model_record import ATTRIBUTE
from corank.training import loop
from corank.training.recipes import RECIPES, chosen_recipe

STEPS, KEPT_EVERY = 8, 3
STOPS = (2, 4, 7)  # before the first kept state, and after each of the others
NAMES = {
    "adamp": "adamp-2bit",
    "apot": "apot-w3a4",
    "bcgd": "bcgd-w1a4",
    "binary": "binary-w1a1",
    "binary-relax": "binary-relax-1bit",
    "binary-vit": "binary-vit-w1a1",
    "bitat": "bitat-1bit",
    "cga": "cga-2bit",
    "compander": "compander",
    "dense-shift": "dense-shift-3bit",
    "direct": "direct-w2a4",
    "dorefa": "dorefa-w2a4",
    "gradient-l1": "gradient-l1",
    "lsq": "lsq-w4a4",
    "ofq": "ofq-w3a3",
    "pact": "pact-w3a3",
    "parq": "parq-2bit",
    "power-of-two": "power-of-two-w3a4",
    "random-bias": "random-bias-1bit",
    "refine": "refine-w2a4",
    "robust": "robust-4bit",
    "roq": "roq-w2a4",
    "s3": "s3-3bit",
    "shift-speech": "shift-speech-3bit",
    "shift-speech-s3": "shift-speech-s3-3bit",
    "stats": "stats-2bit",
    "ternary": "ternary-2bit",
    "weight-aligning": "weight-aligning-4bit",
}


class Killed(Exception):
    """Stands for the end of the process."""


def network() -> nn.Sequential:
    """Images (N, 3, 8, 8) to 4 logits, with norms to fold and one layer in the middle of every kind."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    ).eval()  # fmt: skip


def network_for(recipe: object) -> nn.Module:
    """The network, or one with the attention that a recipe asks for."""
    return timm_vit(depth=1) if isinstance(recipe, str) and recipe.startswith("ofq") else network()


def samples() -> tuple[Tensor, Tensor]:
    labels = torch.arange(32) % 4
    noise = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float32)
    return noise + labels[:, None, None, None], labels


def trained(recipe: str | corank.Recipe | None, folder: Path | None, stop: int | None = None, **asked: Any) -> bytes:
    """What the file holds; of a float network, its tensors."""

    def progress(what: str, done: int, _total: int) -> None:
        if what.startswith("training") and done == stop:
            raise Killed

    torch.manual_seed(torch.seed() % 2**32)  # nothing hangs on what was drawn before
    if recipe == NAMES["robust"]:  # these numbers are no pixels that anything is known of
        first, *others = chosen_recipe(recipe).callbacks
        told = dataclasses.replace(first, mean=(0.5,) * 3, std=(1 / 16,) * 3)
        recipe = chosen_recipe(recipe).replaced(callbacks=(told, *others))
    asked = {"iterations": STEPS, "batch_size": 12, "progress": progress, **asked}
    model = corank.train(network_for(recipe), samples(), recipe, checkpoint=folder, **asked)
    if ATTRIBUTE in model.__dict__:
        return bytes(serialized(model))
    return b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())


def killed_at(stops: tuple[int, ...], run: Callable[[int | None], bytes]) -> bytes:
    """What comes of it when it is started again until it is done."""
    for stop in stops:
        with pytest.raises(Killed):
            run(stop)
    return run(None)


@pytest.fixture(autouse=True)
def kept_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_KEPT_EVERY", KEPT_EVERY)


def test_every_method_is_in_the_table() -> None:
    assert set(NAMES) == set(RECIPES)


@pytest.mark.parametrize("name", NAMES.values())
def test_a_killed_run_ends_in_the_same_file(name: str, tmp_path: Path) -> None:
    whole = trained(name, None)
    assert killed_at(STOPS, lambda stop: trained(name, tmp_path, stop)) == whole
    assert trained(name, tmp_path) == whole  # nothing is left to do


@pytest.mark.parametrize("aim", [{"rate": 1.5}, {"size": "1900"}])
def test_a_killed_run_keeps_to_its_rate_and_size(aim: dict[str, Any], tmp_path: Path) -> None:
    whole = trained(None, None, **aim)
    assert killed_at(STOPS, lambda stop: trained(None, tmp_path, stop, **aim)) == whole


def test_a_killed_run_goes_on_with_its_teacher_alone(tmp_path: Path) -> None:
    teacher = network()
    torch.nn.init.normal_(teacher[11].weight)
    asked: dict[str, Any] = {"teacher": teacher}
    whole = trained("lsq-2bit", None, **asked)
    assert whole != trained("lsq-2bit", None)
    assert killed_at(STOPS, lambda stop: trained("lsq-2bit", tmp_path, stop, **asked)) == whole
    for other in ({}, {"teacher": network()}):
        with pytest.raises(corank.ConfigError, match="teacher"):
            trained("lsq-2bit", tmp_path, **other)


def test_averages_and_parts_of_batches_go_on(tmp_path: Path) -> None:
    recipe = corank.Recipe(average=0.7, callbacks=(corank.training.callbacks.Meters(2),))
    asked: dict[str, Any] = {"parts": 5, "callbacks": ()}
    whole = trained(recipe, None, **asked)
    assert killed_at(STOPS, lambda stop: trained(recipe, tmp_path, stop, **asked)) == whole


KILL = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch, corank
torch.set_num_threads(1)
from training.test_resume import network, samples
from corank.training import loop
loop._KEPT_EVERY = 3
def progress(what, done, total):
    if what.startswith("training") and done == 5:
        os.kill(os.getpid(), signal.SIGKILL)
corank.train(network(), samples(), "cga-2bit", iterations=8, batch_size=12, checkpoint=sys.argv[2], progress=progress)
"""


def test_a_process_that_is_killed_leaves_what_the_next_goes_on_from(tmp_path: Path) -> None:
    tests = str(Path(__file__).parent.parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", KILL, tests, str(tmp_path)], env=environment, check=False, timeout=600)
    assert done.returncode == -signal.SIGKILL
    seen: list[int] = []

    def progress(what: str, done: int, _total: int) -> None:
        if what.startswith("training"):
            seen.append(done)

    assert trained("cga-2bit", tmp_path, progress=progress) == trained("cga-2bit", None)
    assert seen == [4, 5, 6, 7, 8]  # from the state that was kept after step 3
