"""What is said against a training before its first step, with the call that would work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.codecs import DenseShift, ICQuant, StatsQ, Uniform
from corank.errors import ConfigError, DataError
from corank.training import Recipe
from corank.training.callbacks import Callback
from corank.training.checks import check_way, stored_recipe
from corank.training.weights import DoReFa, LearnedStep, StraightThrough

FEW = {"iterations": 1, "batch_size": 8, "samples": 16, "device": "cpu"}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(128, 4),
    ).eval()  # fmt: skip


def images(count: int = 16, side: int = 8) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(count))


def no_step(what: str, done: int, total: int) -> None:
    """A progress that no step and no layer of a start may call."""
    raise AssertionError(f"{what}: {done} of {total}")


def refused(error: type[Exception], said: str, data: Any, recipe: Any, **given: Any) -> str:
    """The message and its notes of a call that must not reach the first step."""
    with pytest.raises(error, match=said) as caught:
        corank.train(network(), data, recipe, progress=no_step, **{**FEW, **given})
    return "; ".join([str(caught.value), *caught.value.__dict__.get("__notes__", [])])


def test_an_unknown_recipe_names_the_nearest() -> None:
    refused(ConfigError, "did you mean 'stats-2bit'", images(), "stast-2bit")


@pytest.mark.parametrize("loss", ["labels", "both"])
def test_labels_that_are_missing(loss: str) -> None:
    refused(DataError, f"loss='{loss}' needs labels.*or loss='distil', which", images(), Recipe(loss=loss))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (torch.full((16,), 4), "label 4 is none of the model's 4 classes"),
        (torch.full((16,), -1), "label -1"),
        (torch.zeros(15, dtype=torch.int64), "15 labels for 16 samples"),
        (torch.zeros(16, 2, dtype=torch.int64), "give whole numbers"),
    ],
)
def test_labels_that_do_not_fit(labels: Tensor, said: str) -> None:
    refused(DataError, said, [(images(), labels)], Recipe(loss="labels"))


def test_a_scratch_recipe_says_that_it_needs_labels() -> None:
    refused(DataError, "needs labels", images(), "dense-shift-3bit")


def test_a_layers_codec_that_cannot_train() -> None:
    said = refused(ConfigError, r"StraightThrough\(ICQuant\(...\)\) trains", images(), Recipe(LearnedStep(ICQuant(3))))
    assert "layer '3'" in said and "layers={'3': 'float'}" in said
    said = refused(ConfigError, "ends in StatsQ", images(), Recipe(DoReFa(2)), layers={"3": "dense-shift:3"})
    assert "layer '3', which gets DenseShift" in said


def test_samples_of_a_shape_that_the_network_does_not_take() -> None:
    refused(DataError, r"batch of shape \(2, 1, 8, 8\)", images()[:, :1], Recipe())
    later = [images(8), images(8), images(8, 9)]
    refused(DataError, r"batch of shape \(1, 3, 9, 9\)", later, Recipe(augment="none"))


@dataclass(frozen=True)
class Unregistered(Callback):
    """Of a user who has not registered it."""


@dataclass(frozen=True)
class Unlisted(LearnedStep):
    """A way of training that no table has."""


@pytest.mark.parametrize("recipe", [Recipe(callbacks=(Unregistered(),)), Recipe(Unlisted())])
def test_a_part_that_no_file_could_name(recipe: Recipe) -> None:
    refused(ConfigError, "is not registered", images(), recipe)


def test_a_callback_of_ones_own_is_given_to_the_call() -> None:
    made = corank.train(network(), images(), Recipe(), callbacks=[Unregistered()], **FEW)
    assert corank.recipe_of(made) == Recipe(iterations=1, batch_size=8)


def test_a_recipe_is_stored_as_plain_values() -> None:
    assert stored_recipe(Recipe(iterations=7)) == {"format": 2, "iterations": 7}


@pytest.mark.parametrize(
    ("way", "trains"),
    [
        (lambda: StraightThrough(ICQuant(3)), True),
        (lambda: LearnedStep(Uniform(3, range="mse")), True),
        (lambda: StraightThrough(StatsQ(2)), True),
        (lambda: LearnedStep(DenseShift(3, power_of_two_scale=True)), False),
        (lambda: LearnedStep(ICQuant(3)), False),
    ],
)
def test_a_way_is_tried_on_a_few_rows(way: Callable[[], Any], trains: bool) -> None:
    weight = torch.randn(6, 40)
    if trains:
        check_way(way(), weight)
    else:
        with pytest.raises(ConfigError, match="no scales of fp16"):
            check_way(way(), weight)
