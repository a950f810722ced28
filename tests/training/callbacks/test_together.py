"""AdamP, annealing and meters together, through the public call: a killed run ends as one that was left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from corank.codecs import StatsQ
from corank.training.callbacks import Confidence, Meters
from corank.training.recipe import Optimizer, Recipe, Schedule
from corank.training.weights import StraightThrough
from corank.verbs.train import train


class Stopped(Exception):
    """Raised in the middle of a run."""


def stopped(what: str, done: int, total: int) -> None:
    if "training" in what and done == 27:
        raise Stopped


def test_a_killed_run_goes_on_to_the_same_network(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="needs the extra `vision`")
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    ).eval()  # fmt: skip
    images = torch.randn(64, 3, 8, 8)
    recipe = Recipe(
        weights=StraightThrough(StatsQ(2)), callbacks=(Confidence(0.02, from_share=0.5), Meters(every=2)),
        optimizer=Optimizer("adamp"), schedule=Schedule(floor=0.02, hold=0.1), iterations=30, batch_size=16,
    )  # fmt: skip
    whole = train(model, images, recipe)
    with pytest.raises(Stopped):
        train(model, images, recipe, checkpoint=tmp_path, progress=stopped)
    again = train(model, images, recipe, checkpoint=tmp_path)
    assert vars(whole)["corank_run"].history == vars(again)["corank_run"].history
    assert {"oscillations", "moved", "norm"} <= set(vars(whole)["corank_run"].history[-1])
    assert all(
        torch.equal(one, other)
        for one, other in zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    )
