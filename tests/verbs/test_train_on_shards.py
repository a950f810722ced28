"""Training on shards: what training on the folder gives, whatever reads ahead, and after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from corank.data import ImageSet, Preprocessing, load, pack
from corank.data.arrays import PixelSource
from corank.errors import ConfigError
from corank.training.callbacks import Callback
from corank.training.recipe import Recipe
from corank.verbs import training_data
from corank.verbs.train import train
from corank.verbs.training_data import read_labelled, reading_threads

PIXELS = np.random.RandomState(0).randint(0, 256, (60, 6, 6, 3)).astype(np.uint8)
IMAGES = ImageSet(PixelSource(PIXELS), Preprocessing(), np.arange(60, dtype=np.int64) % 5)
RECIPE = Recipe(iterations=9, batch_size=8, loss="both", precision="float32")


@pytest.fixture
def shards(tmp_path: Path) -> str:
    pack(IMAGES, tmp_path / "shards", shard_bytes=20_000)
    return str(tmp_path / "shards")


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_data, "_HELD_BYTES", 1000)


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 16, 5)).eval()


def same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.usefixtures("decoding")
def test_shards_and_arrays_and_any_workers_train_the_same_network(shards: str) -> None:
    expected = train(net(), IMAGES, RECIPE, workers=0)
    for workers in (0, 1, 3, None):
        assert same(train(net(), load(shards), RECIPE, workers=workers), expected)


class Killed(Exception):
    pass


@pytest.mark.usefixtures("decoding")
@pytest.mark.parametrize("far", [False, True])
def test_a_run_that_was_killed_in_mid_epoch_goes_on_in_the_identical_order(
    far: bool, shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corank.training.loop._KEPT_EVERY", 2)
    place = f"file://{shards}" if far else shards
    drawn: list[list[int]] = []

    class Watch(Callback):
        def __init__(self, last: int) -> None:
            self.last = last

        def step_done(self, state: Any) -> None:
            drawn.append(state.labels.tolist())
            if state.step == self.last:
                raise Killed

    whole = train(net(), load(place), RECIPE, callbacks=[Watch(99)])
    uninterrupted = list(drawn)
    drawn.clear()
    with pytest.raises(Killed):
        train(net(), load(place), RECIPE, callbacks=[Watch(4)], checkpoint=tmp_path / "kept")
    del drawn[4:]  # of what was done, four steps are kept
    again = train(net(), load(place), RECIPE, callbacks=[Watch(99)], checkpoint=tmp_path / "kept")
    assert drawn == uninterrupted and same(again, whole)


def test_far_shards_are_drawn_in_turn_whether_or_not_memory_holds_them(
    shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = read_labelled(load(f"file://{shards}"), 8, 3)
    monkeypatch.setattr(training_data, "_HELD_BYTES", 1000)
    lazy, near = read_labelled(load(f"file://{shards}"), 8, 3), read_labelled(load(shards), 8, 3)
    assert near.groups is None and held.groups is not None
    for step in range(20):
        assert torch.equal(held.draw(step), lazy.draw(step))
        assert torch.equal(held(step)[0], lazy(step)[0])
    assert held.identity == lazy.identity != near.identity
    for epoch in range(2):
        seen = torch.cat([lazy.draw(step) for step in range(epoch * 7, epoch * 7 + 7)])
        assert len(seen.unique()) == 56


def test_what_is_in_memory_is_not_read_ahead(shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reading_threads(read_labelled(load(shards), 8, 0), 3) == 0
    monkeypatch.setattr(training_data, "_HELD_BYTES", 1000)
    batches = read_labelled(load(shards), 8, 0)
    assert reading_threads(batches, 3) == 3 and 1 <= reading_threads(batches, None) <= 4
    for wrong in (-1, True, 1.5, 65):
        with pytest.raises(ConfigError, match="workers="):
            reading_threads(batches, wrong)  # pyright: ignore[reportArgumentType]
