"""The recipe of the weight compander."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from training.tiny_state import labelled_images, small_network

from corank.errors import ConfigError
from corank.training.recipe import Recipe
from corank.training.recipes import RECIPES, chosen_recipe
from corank.training.weights import Compander
from corank.verbs.train import train


def test_it_ends_in_float() -> None:
    recipe = chosen_recipe("compander")
    assert recipe.weights == recipe.edge == Compander() and recipe.inputs is None
    assert Recipe.from_json(recipe.to_json()) == recipe
    for bits, inputs in ((4, None), (32, 4)):
        with pytest.raises(ConfigError, match="recipe='compander'"):
            RECIPES["compander"](bits, inputs)


def test_a_float_network_comes_back() -> None:
    data, network = labelled_images(), small_network(inplace=True).eval()
    found = train(network, data, "compander", iterations=4, batch_size=8)
    assert [type(one) for one in found] == [type(one) for one in network]
    assert found.state_dict().keys() == network.state_dict().keys()
    assert isinstance(found[0], nn.Conv2d) and not torch.equal(found[0].weight, network[0].weight)
    assert not any(one._forward_hooks for one in found.modules())
