"""The shift network for speech: its parts, and a small one that trains, is stored and computes the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import corank
from corank.data import Sampling
from corank.errors import ConfigError
from corank.layers import CodedLayer
from corank.models import SpeechResNet
from corank.training.penalties import ShiftZero
from corank.training.recipe import Recipe
from corank.training.recipes import RECIPES
from corank.training.weights import DenseShiftLatents, S3Latents

RATE = 4000


def words(count: int) -> tuple[Tensor, Tensor]:
    """Three tones of 0.1 to 0.2 s in noise, zeros behind them."""
    labels = torch.arange(count) % 3
    places = torch.arange(800)
    sound = torch.sin(2 * torch.pi * (300.0 + 500 * labels[:, None]) * places / RATE) + 0.3 * torch.randn(count, 800)
    lengths = torch.randint(400, 801, (count, 1))
    return 0.2 * sound * (places < lengths), labels


def test_parts() -> None:
    for bits in (2, 3, 4):
        recipe = RECIPES["shift-speech"](bits, None)
        assert recipe.weights == DenseShiftLatents(bits) and recipe.inputs is None
        assert (recipe.start, recipe.loss, recipe.augment) == ("scratch", "labels", "none")
        assert Recipe.from_json(recipe.to_json()) == recipe
    recipe = RECIPES["shift-speech-s3"](3, None)
    assert recipe.weights == S3Latents() and recipe.penalties == (ShiftZero(),)
    with pytest.raises(ConfigError):
        RECIPES["shift-speech-s3"](2, None)


@pytest.mark.parametrize("name", ["shift-speech-2bit", "shift-speech-s3-3bit"])
def test_a_small_one_learns_tones_and_is_stored(name: str, tmp_path: Path) -> None:
    sound, labels = words(48)
    model = SpeechResNet(3, Sampling(RATE, 0.2), mels=16, width=4)
    trained = corank.train(model, (sound, labels), name, iterations=30, batch_size=24)
    found = corank.evaluate(trained, [(sound, labels)])
    assert found.top1 is not None and found.top1 > 60
    for path, layer in trained.named_modules():
        if isinstance(layer, CodedLayer) and path not in ("conv1", "head"):
            sizes = layer.weight.detach().abs()
            exponents = sizes[sizes > 0].log2()
            assert torch.equal(exponents, exponents.round())
    size = corank.save(trained, tmp_path / "small.safetensors")
    assert size < 12_000  # no table of the front end is in it
    loaded = corank.load(tmp_path / "small.safetensors", SpeechResNet(3, Sampling(RATE, 0.2), mels=16, width=4))
    assert torch.equal(loaded(sound), trained(sound))
