"""The recipe of direct quantization."""

from __future__ import annotations

from pathlib import Path

import torch
from training.tiny_state import labelled_images, small_network

import corank
from corank.training.inputs import ChannelWeightedInputs
from corank.training.recipe import Recipe
from corank.training.recipes import RECIPES
from corank.training.weights import DirectLevels
from corank.verbs.train import train


def test_widths() -> None:
    recipe = RECIPES["direct"](2, None)
    assert recipe.weights == DirectLevels(2) and recipe.inputs is None
    assert RECIPES["direct"](3, 4).inputs == ChannelWeightedInputs(4)
    assert Recipe.from_json(RECIPES["direct"](3, 4).to_json()) == RECIPES["direct"](3, 4)


def test_from_a_network_to_a_file(tmp_path: Path) -> None:
    data = labelled_images()
    found = train(small_network().eval(), data, RECIPES["direct"](2, 4), iterations=4, batch_size=8)
    corank.save(found, tmp_path / "a.crk")
    again = corank.load(tmp_path / "a.crk", small_network())
    assert torch.equal(again(data.tensor()), found(data.tensor()))
    assert all(len(row.unique()) <= 4 for row in found[3].weight.flatten(1))
