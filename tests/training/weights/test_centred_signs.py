"""BinaryViT's weights: two values a row, the mean magnitude preserved, and the gradient through the centring."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from corank.codecs import Binary, StatsQ
from corank.errors import ConfigError
from corank.matrix import Geometry
from corank.training.described import described, read
from corank.training.weights import CentredSigns, TrainableWeight, WeightStart, WeightTraining


def started(weight: Tensor, layer: nn.Module | None = None) -> TrainableWeight:
    geometry = Geometry.of(layer or nn.Linear(weight.shape[1], weight.shape[0]))
    running, latent = CentredSigns().start(WeightStart(weight, fresh=True, geometry=geometry))
    assert torch.equal(latent, weight)
    return running


@pytest.fixture
def weight() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(6, 40) * 0.3 + torch.linspace(-0.2, 0.2, 6)[:, None]


def test_two_values_a_row_of_the_mean_magnitude(weight: Tensor) -> None:
    found = started(weight)(weight)
    size = weight.abs().mean(1, keepdim=True).half().float()  # of the weight that is not centred
    assert torch.equal(found.abs(), size.expand_as(found))
    centred = weight - weight.mean(1, keepdim=True)
    assert torch.equal(found > 0, centred >= 0) and not torch.equal(found > 0, weight >= 0)


def test_the_sign_of_zero_is_plus() -> None:
    found = started(torch.full((2, 5), 0.5))(torch.full((2, 5), 0.5))
    assert torch.equal(found, torch.full((2, 5), 0.5))


def test_convolutions_are_not_centred(weight: Tensor) -> None:
    found = started(weight, nn.Conv2d(10, 6, 2))(weight)
    assert torch.equal(found > 0, weight >= 0)


def test_the_gradient_is_the_identity_within_one_and_that_of_the_centring(weight: Tensor) -> None:
    latent = (5 * weight).requires_grad_()
    given = torch.randn_like(weight)
    running = started(latent.detach())
    (running(latent) * given).sum().backward()
    centred = latent.detach() - latent.detach().mean(1, keepdim=True)
    through = given * (centred.abs() <= 1)
    assert 0 < int((centred.abs() > 1).sum()) < centred.numel()
    assert latent.grad is not None
    torch.testing.assert_close(latent.grad, through - through.mean(1, keepdim=True))


def test_what_ships_is_what_trained(weight: Tensor) -> None:
    running = started(weight)
    coded = running.coded(weight)
    assert torch.equal(coded.decode(), running(weight)) and running.codec == Binary()
    assert coded.codes.dtype == torch.uint8 and int(coded.codes.max()) == 1


def test_as_a_setting() -> None:
    assert read(described(CentredSigns()), WeightTraining) == CentredSigns() and CentredSigns().stored == Binary()
    with pytest.raises(ConfigError, match="Binary"):
        CentredSigns(StatsQ(2))
