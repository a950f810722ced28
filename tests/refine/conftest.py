"""Digits and the small network trained on them, folded."""

from __future__ import annotations

import pytest
from torch import Tensor, nn

from corank.data import load as load_images
from corank.layers import prepare
from corank.models.digits import digits_net


@pytest.fixture(scope="session")
def images() -> Tensor:
    return load_images("digits:train").tensor()[:320]


@pytest.fixture(scope="session")
def teacher(images: Tensor) -> nn.Module:
    return prepare(digits_net(), lambda one: one(images[:2])).model
