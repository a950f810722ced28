"""The recipe of random bias initialization."""

from __future__ import annotations

import pytest
import torch
from training.tiny_state import labelled_images, small_network

from corank.errors import ConfigError
from corank.training.callbacks import RandomBias
from corank.training.recipe import Recipe
from corank.training.recipes import RECIPES
from corank.verbs.train import train


def test_its_parts() -> None:
    recipe = RECIPES["random-bias"](1, None)
    assert recipe.callbacks == (RandomBias(),) and recipe.start == "scratch"
    assert Recipe.from_json(recipe.to_json()) == recipe
    with pytest.raises(ConfigError, match="random-bias-w1a1"):
        RECIPES["random-bias"](2, None)


def test_from_scratch_to_a_binary_network() -> None:
    data, network = labelled_images(), small_network().eval()
    for name in ("random-bias-1bit", "random-bias-w1a1"):
        found = train(network, data, name, iterations=4, batch_size=8)
        assert bool(torch.isfinite(found(data.tensor())).all())
        assert all(len(row.unique()) == 2 for row in found[3].weight.flatten(1))
