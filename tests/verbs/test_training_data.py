"""Data of a training in every form that quantize takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from corank.data import ImageSet, Preprocessing, TokenSet
from corank.data.arrays import PixelSource
from corank.errors import ConfigError, DataError
from corank.training.recipe import Recipe
from corank.verbs import training_data
from corank.verbs.train import train
from corank.verbs.training_data import read_labelled

PIXELS = np.random.RandomState(0).randint(0, 256, (20, 6, 6, 3)).astype(np.uint8)
CLASSES = np.arange(20, dtype=np.int64)
IMAGES = ImageSet(PixelSource(PIXELS), Preprocessing(), CLASSES)
TENSOR, LABELS = IMAGES.tensor(), torch.from_numpy(CLASSES)


@pytest.mark.parametrize(
    "data",
    [
        IMAGES,
        (TENSOR, LABELS),
        {"x": TENSOR, "labels": LABELS},
        list(IMAGES.batches(6)),
        DataLoader(TensorDataset(TENSOR, LABELS), 6),
        ({"x": part, "labels": own} for part, own in zip(TENSOR.split(6), LABELS.split(6), strict=True)),
    ],
)
def test_every_form_gives_the_same_batches(data: Any) -> None:
    found = read_labelled(data, 8, 3)
    assert len(found) == 20
    inputs, labels = found(4)
    assert labels is not None and labels.tolist() == read_labelled(IMAGES, 8, 3).draw(4).tolist()
    assert torch.equal(inputs["x"] if isinstance(inputs, dict) else inputs, TENSOR[labels])


def test_unlabelled_forms_and_a_tuple_of_batches() -> None:
    for data in (TENSOR, [TENSOR], (TENSOR[:10], TENSOR[10:])):
        found = read_labelled(data, 8, 0)
        assert len(found) == 20 and not found.labelled
    assert read_labelled(TokenSet(torch.ones(4, 8, dtype=torch.int64)), 8, 0).labelled  # by what follows


def test_images_beyond_what_is_held_are_decoded_as_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    held = read_labelled(IMAGES, 8, 3)
    monkeypatch.setattr(training_data, "_HELD_BYTES", 1000)
    lazy = read_labelled(IMAGES, 8, 3)
    assert isinstance(lazy.source, training_data._Decoded) and not isinstance(held.source, training_data._Decoded)
    for step in range(4):
        for one, other in zip(lazy(step), held(step), strict=True):
            assert one is not None and other is not None and torch.equal(one, other)
    assert lazy.identity == held.identity
    with pytest.raises(DataError, match="none of the model's 5 classes"):
        lazy.check_labels("labels", torch.randn(1, 5))


def test_a_limit_draws_images_by_the_seed() -> None:
    one, other = (read_labelled(IMAGES, 4, seed, 5) for seed in (1, 2))
    assert len(one) == len(other) == 5 and one.source.labels[0].tolist() != other.source.labels[0].tolist()
    assert len(read_labelled(TENSOR, 4, 0, 7)) == len(read_labelled([TENSOR, TENSOR], 4, 0, 7)) == 7


def test_images_of_different_sizes_are_said_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mixed(PixelSource):
        def batch(self, indices: Any, preprocessing: Preprocessing) -> torch.Tensor:
            return torch.zeros(len(indices), 3, 6, 6 if indices[0] < 16 else 7)

    monkeypatch.setattr(training_data, "_HELD_BYTES", 1000)
    with pytest.raises(DataError, match="different sizes"):
        read_labelled(ImageSet(Mixed(PIXELS), Preprocessing(), CLASSES), 8, 0)


def test_what_is_refused() -> None:
    for data, words in ((3, "not int"), ("photos", "corank.data.load"), (TENSOR * float("nan"), "NaN")):
        with pytest.raises(DataError, match=words):
            read_labelled(data, 8, 0)


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 16, 20)).eval()


def test_every_form_trains_the_same_network() -> None:
    recipe = Recipe(iterations=3, batch_size=8, loss="both", precision="float32")
    forms: list[Any] = [(TENSOR, LABELS), list(IMAGES.batches(6)), iter(IMAGES.batches(6)), [(TENSOR, LABELS)]]
    found = [train(net(), data, recipe) for data in forms]
    histories = [vars(one)["corank_run"].history for one in found]
    assert len(histories[0]) == 3
    for history in histories[1:]:
        assert [step["loss"] for step in history] == pytest.approx([step["loss"] for step in histories[0]], rel=1e-4)


def test_what_a_loss_needs_is_said_before_the_first_step() -> None:
    def progress(what: str, done: int, total: int) -> None:
        assert "training" not in what

    for data, words in ((TENSOR, "loss='labels' needs labels"), ((TENSOR, LABELS + 5), "none of the model's 20")):
        with pytest.raises(DataError, match=words):
            train(net(), data, Recipe(iterations=3, loss="labels"), progress=progress)
    with pytest.raises(ConfigError, match="'turn' is none of"):
        train(net(), TENSOR, Recipe(iterations=3, augment="turn"), progress=progress)


def test_a_checkpoint_of_other_labels_is_another_run(tmp_path: Path) -> None:
    recipe = Recipe(iterations=2, batch_size=8, loss="labels", precision="float32")
    train(net(), (TENSOR, LABELS), recipe, checkpoint=tmp_path)
    with pytest.raises(ConfigError, match="samples differs"):
        train(net(), (TENSOR, LABELS.flip(0)), recipe, checkpoint=tmp_path)


@pytest.mark.parametrize(("iterations", "expected"), [(10, "flip"), (50, "flip"), (51, "flip-shift")])
def test_images_that_are_seen_often_are_shifted_too(
    iterations: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 of 20 samples a step: 50 steps see each 20 times."""
    fed: list[str] = []
    monkeypatch.setattr(training_data, "augmentation_for", lambda name, batch, asked: fed.append(name) or "none")
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 20))
    recipe = Recipe(weights=None, edge=None, edge_inputs=None, start="float", iterations=iterations, batch_size=8)
    train(network, TENSOR, recipe)
    assert fed == [expected]
