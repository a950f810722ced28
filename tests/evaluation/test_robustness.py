"""Scores under attacks: of float and coded networks, of which data, and what cannot be attacked."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training.tiny_state import labelled_images, small_network

import corank
from corank.attacks import Attack, attacked
from corank.data import ImageSet, Preprocessing
from corank.data.arrays import TensorSource
from corank.errors import ConfigError, DataError
from corank.training.recipe import Recipe

FLOAT = Recipe(weights=None, edge=None, edge_inputs=None, start="float", loss="labels", iterations=40, batch_size=32)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return corank.train(small_network().eval(), labelled_images(64), FLOAT)


def test_scores_fall_as_the_ball_grows_and_are_the_clean_ones_in_none(model: nn.Module) -> None:
    names = ("fgsm:0/255", "fgsm:4/255", "pgd:4/255,10", "fgsm:32/255")
    found = corank.evaluate(model, labelled_images(64), attacks=names)
    assert found.top1 is not None and list(found.attacked) == list(names)
    none, small, more, large = found.attacked.values()
    assert none == found.top1 and none >= small >= more and small > large
    assert found == corank.evaluate(model, labelled_images(64), attacks=names)  # random starts and all
    assert corank.evaluate(model, labelled_images(64)).attacked is None


def test_a_batch_at_a_time_is_what_is_counted(model: nn.Module) -> None:
    images, labels = next(labelled_images(64).batches(64))
    assert labels is not None
    attack = Attack.of("fgsm:4/255").seen_by((0.0,) * 3, (1.0,) * 3)
    changed = attacked(attack, images, lambda inputs: F.cross_entropy(model(inputs), labels))
    right = float((model(changed).argmax(1) == labels).double().mean())
    for size in (7, 64):
        found = corank.evaluate(model, labelled_images(64), attacks="fgsm:4/255", batch_size=size)
        assert found.attacked["fgsm:4/255"] == pytest.approx(100 * right)


@pytest.mark.parametrize("inputs", [None, 4, 1])
def test_coded_networks_pass_the_gradient_through_what_rounds_inputs(model: nn.Module, inputs: int | None) -> None:
    if inputs == 1:
        small = corank.train(model, labelled_images(64), "binary-w1a1", iterations=30, batch_size=32)
    else:
        small = corank.quantize(model, labelled_images(64), bits=4, budget=0, activations=inputs)
    found = corank.evaluate(small, labelled_images(64), model, attacks=["fgsm:48/255"])
    assert found.top1 is not None and found.attacked["fgsm:48/255"] < found.top1 - 5  # as it is where no gradient comes
    assert not any(one.requires_grad for one in small.parameters())


def test_the_caller_may_have_switched_gradients_off(model: nn.Module) -> None:
    expected = corank.evaluate(model, labelled_images(), attacks="fgsm:4/255")
    with torch.no_grad():
        assert corank.evaluate(model, labelled_images(), attacks="fgsm:4/255") == expected
    with torch.inference_mode():
        assert corank.evaluate(model, labelled_images(), attacks="fgsm:4/255") == expected


def test_normalised_images_are_attacked_in_pixels(model: nn.Module) -> None:
    """The same network behind another normalisation is as robust."""
    plain = labelled_images(64)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    seen = ImageSet(plain.source, Preprocessing(mean=mean, std=std), plain.labels)

    class Undone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.inner(images * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1))

    for name in ("fgsm:4/255", "pgd:8/255,5"):
        one, other = (corank.evaluate(m, d, attacks=name) for m, d in ((model, plain), (Undone(), seen)))
        assert one.attacked[name] == pytest.approx(other.attacked[name], abs=2)


def test_what_cannot_be_attacked(model: nn.Module) -> None:
    images, labels = next(labelled_images().batches(32))
    with pytest.raises(ConfigError, match="seen_by"):
        corank.evaluate(model, [(images, labels)], attacks="fgsm:4/255")
    given = ImageSet(TensorSource(images), Preprocessing(), labelled_images().labels)
    with pytest.raises(ConfigError, match="seen_by"):
        corank.evaluate(model, given, attacks="fgsm:4/255")
    told = Attack.of("fgsm:4/255").seen_by((0.0,) * 3, (1.0,) * 3)
    assert corank.evaluate(model, [(images, labels)], attacks=[told]).attacked
    with pytest.raises(DataError, match="labels"):
        corank.evaluate(model, [images], model, attacks=[told])
    with pytest.raises(ConfigError, match="cannot be read"):
        corank.evaluate(model, labelled_images(), attacks=["bim:1"])
    with pytest.raises(ConfigError, match="names such as"):
        corank.evaluate(model, labelled_images(), attacks=[3])  # pyright: ignore[reportArgumentType]
