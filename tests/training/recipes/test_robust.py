"""The recipe for sparse and robust networks: what it is made of, and that what comes out is sparse and coded."""

from __future__ import annotations

import pytest
import torch
from training.tiny_state import labelled_images, small_network

import corank
from corank.errors import ConfigError
from corank.training.callbacks import Adversarial, ConditionNumbers, Sparsify
from corank.training.penalties import ConditionNumber, TransformedL1
from corank.training.recipe import Recipe
from corank.training.recipes import chosen_recipe
from corank.training.recipes.robust import robust


def test_what_it_is_made_of() -> None:
    for name in ("robust", "robust-4bit", "robust-w4a4"):
        recipe = chosen_recipe(name)
        assert {type(one) for one in recipe.penalties} == {TransformedL1, ConditionNumber}
        assert [type(one) for one in recipe.callbacks] == [Adversarial, Sparsify, ConditionNumbers]
        assert recipe.loss == "labels" and recipe.ends_in_float is (name == "robust")
        assert Recipe.from_json(recipe.to_json()) == recipe
    for bits, inputs in ((1, None), (32, 4)):
        with pytest.raises(ConfigError, match="robust keeps zeros"):
            robust(bits, inputs)


def test_a_float_network_and_one_in_codes_have_their_zeros_and_a_history() -> None:
    torch.manual_seed(0)
    data = labelled_images()
    given = {"iterations": 6, "batch_size": 16}
    sparse = corank.train(small_network().eval(), data, "robust", **given)
    assert int((sparse[3].weight == 0).sum()) == int(0.9 * sparse[3].weight.numel())
    assert float((sparse[0].weight == 0).double().mean()) == 0  # the first layer stays as it is
    small = corank.train(small_network().eval(), data, "robust-4bit", **given)
    assert int((small[3].weight == 0).sum()) >= int(0.9 * small[3].weight.numel())
    last = small.corank_run.history[-1]
    assert last["sparsity"] == pytest.approx(int(0.9 * 216) / 216) and last["condition_max"] >= last["condition"] > 0
