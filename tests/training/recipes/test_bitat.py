"""The recipe in the manner of BiTAT."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training.tiny_state import labelled_images, small_network

import corank
from corank.codecs import Binary
from corank.errors import ConfigError
from corank.training.callbacks import LayerByLayer
from corank.training.penalties import Importance
from corank.training.recipe import Recipe
from corank.training.recipes import RECIPES
from corank.training.weights import StraightThrough
from corank.verbs.train import train


def test_its_parts() -> None:
    recipe = RECIPES["bitat"](1, None)
    assert recipe.weights == StraightThrough(Binary()) and recipe.start == "float"
    assert [type(one) for one in (*recipe.penalties, *recipe.callbacks)] == [Importance, LayerByLayer]
    assert Recipe.from_json(recipe.to_json()) == recipe
    for bits, inputs in ((2, None), (1, 4)):
        with pytest.raises(ConfigError, match="bitat-1bit"):
            RECIPES["bitat"](bits, inputs)


def test_from_a_network_to_a_file(tmp_path: Path) -> None:
    data = labelled_images()
    found = train(small_network().eval(), data, "bitat-1bit", iterations=6, batch_size=8)
    corank.save(found, tmp_path / "a.crk")
    again = corank.load(tmp_path / "a.crk", small_network())
    assert torch.equal(again(data.tensor()), found(data.tensor()))
    assert all(len(row.unique()) == 2 for row in found[3].weight.flatten(1))
