"""The recipe of gradient l1 regularization."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from training.tiny_state import labelled_images, small_network

from corank.errors import ConfigError
from corank.training.penalties import GradientL1
from corank.training.recipe import Recipe
from corank.training.recipes import RECIPES, chosen_recipe
from corank.verbs.train import train


def test_nothing_is_rounded() -> None:
    recipe = chosen_recipe("gradient-l1")
    assert recipe.weights is recipe.edge is recipe.inputs is None
    assert [type(one) for one in recipe.penalties] == [GradientL1]
    assert Recipe.from_json(recipe.to_json()) == recipe
    for bits, inputs in ((4, None), (32, 4)):
        with pytest.raises(ConfigError, match="recipe='gradient-l1'"):
            RECIPES["gradient-l1"](bits, inputs)


def test_a_float_network_comes_back() -> None:
    data, network = labelled_images(), small_network(inplace=True).eval()
    found = train(network, data, "gradient-l1", iterations=4, batch_size=8)
    assert [type(one) for one in found] == [type(one) for one in network]
    assert found.state_dict().keys() == network.state_dict().keys()
    assert isinstance(found[0], nn.Conv2d) and not torch.equal(found[0].weight, network[0].weight)
    assert not any(one._forward_hooks for one in found.modules())
