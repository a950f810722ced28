"""The recipe of a network and of its file, and that it makes the same file again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import corank
from corank.codecs import Uniform
from corank.errors import ArtifactError, ConfigError, ModelError
from corank.storage.artifact import read, serialized
from corank.storage.model_record import ATTRIBUTE, ModelRecord
from corank.training import Optimizer, Recipe
from corank.training.callbacks import Meters
from corank.training.inputs import LearnedStepInputs
from corank.training.weights import LearnedStep

IMAGES = torch.randn(48, 3, 8, 8, generator=torch.Generator().manual_seed(1))
RECIPE = Recipe(
    LearnedStep(Uniform(3, range="mse", half=True)), LearnedStepInputs(4), callbacks=(Meters(),),
    optimizer=Optimizer(rate=0.001), iterations=4, batch_size=16,
)  # fmt: skip


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(128, 4),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    return corank.train(network(), IMAGES, RECIPE, seed=3, device="cpu")


@pytest.fixture(scope="module")
def file(trained: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "model.safetensors"
    corank.save(trained, path)
    return path


def test_a_recipe_read_back_makes_the_same_file(trained: nn.Module, file: Path) -> None:
    found = corank.recipe_of(file)
    assert found == RECIPE == corank.recipe_of(trained) == corank.recipe_of(corank.load(file, network()))
    again = corank.train(network(), IMAGES, found, seed=3, device="cpu")
    assert serialized(again) == file.read_bytes()
    assert serialized(corank.train(network(), IMAGES, found, seed=4, device="cpu")) != file.read_bytes()


def test_what_the_call_said_of_steps_and_samples_is_in_the_recipe() -> None:
    made = corank.train(network(), IMAGES, "stats-2bit", iterations=2, batch_size=8, device="cpu")
    assert (corank.recipe_of(made).iterations, corank.recipe_of(made).batch_size) == (2, 8)


def test_it_is_in_the_record_and_costs_little(trained: nn.Module, file: Path) -> None:
    assert corank.inspect(file)["recipe"] == RECIPE.to_json() == corank.inspect(trained)["recipe"]
    run, contents = read(file)
    assert run.recipe == contents.header["recipe"] == RECIPE.to_json()
    without = corank.load(file, network())
    without.__dict__[ATTRIBUTE] = ModelRecord(**{**vars(run), "recipe": None})
    assert 0 < file.stat().st_size - len(serialized(without)) < 200


def test_what_was_not_trained_has_none(tmp_path: Path) -> None:
    model = corank.quantize(network(), IMAGES, bits=3, budget=0.0, preset="nearest")
    corank.save(model, tmp_path / "model.safetensors")
    assert corank.inspect(tmp_path / "model.safetensors")["recipe"] is None
    for one in (model, tmp_path / "model.safetensors"):
        with pytest.raises(ConfigError, match="was not trained"):
            corank.recipe_of(one)
    with pytest.raises(ModelError, match="was not made by corank"):
        corank.recipe_of(network())


def test_a_recipe_of_another_version_stops_nobody_who_does_not_ask_for_it(file: Path, tmp_path: Path) -> None:
    model = corank.load(file, network())
    run = model.__dict__[ATTRIBUTE]
    model.__dict__[ATTRIBUTE] = ModelRecord(
        **{**vars(run), "recipe": {"format": 1, "weights": {"kind": "of tomorrow"}}}
    )
    corank.save(model, tmp_path / "later.safetensors")
    loaded = corank.load(tmp_path / "later.safetensors", network())
    assert torch.equal(loaded(IMAGES), model(IMAGES))
    assert corank.inspect(tmp_path / "later.safetensors")["recipe"]["weights"] == {"kind": "of tomorrow"}
    with pytest.raises(ArtifactError, match="cannot be read by this version: no way to train weights is called"):
        corank.recipe_of(tmp_path / "later.safetensors")
