from __future__ import annotations

from importlib import resources

import numpy as np
import pytest
import torch
from safetensors.torch import load

from corank.models.digits import DigitsNet, digits_net


def test_shipped_weights_reach_their_accuracy_on_held_out_digits() -> None:
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    held_out = np.arange(len(digits.target)) % 4 == 3
    pixels = np.rint(digits.images[held_out] * (255 / 16)).astype(np.uint8)
    with torch.no_grad():
        logits = digits_net()(torch.from_numpy(pixels)[:, None].float() / 255)
    assert logits.shape == (449, 10)
    assert (logits.argmax(1).numpy() == digits.target[held_out]).mean() >= 0.985


def test_weights_are_small_and_stored_in_half_precision() -> None:
    data = resources.files("corank.models").joinpath("digits.safetensors").read_bytes()
    assert len(data) < 500_000
    floats = [value for value in load(data).values() if value.is_floating_point()]
    assert {value.dtype for value in floats} == {torch.float16}


def test_the_trained_network_is_ready_to_use() -> None:
    model = digits_net()
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert 150_000 <= sum(parameter.numel() for parameter in model.parameters()) <= 200_000


def test_without_weights_it_is_random() -> None:
    first, second = DigitsNet(), DigitsNet()
    assert not torch.equal(first.head.weight, second.head.weight)
