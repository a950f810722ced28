"""Where a model is, and where it is asked to go."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from corank.devices import chosen_device, device_of
from corank.errors import ConfigError


def test_of_a_model() -> None:
    assert device_of(nn.Linear(2, 2, device="meta")) == torch.device("meta")
    assert device_of(nn.BatchNorm1d(2, affine=False, device="meta")) == torch.device("meta")
    assert device_of(nn.ReLU()) == torch.device("cpu")


def test_choice() -> None:
    expected = "cuda" if torch.cuda.is_available() else "meta"
    assert chosen_device("auto", torch.device("meta")).type == expected
    assert chosen_device("cpu", torch.device("meta")) == torch.device("cpu")
    with pytest.raises(ConfigError, match="cannot be used here"):
        chosen_device("teapot", torch.device("cpu"))
