"""The straight-through gradient against the exact gradient of a quadratic loss under random rounding."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.analysis.straight_through import Dithered, check_gradients, check_rounder
from corank.codecs import Codebook, Uniform
from corank.rounding.stochastic import Stochastic
from corank.statistics import LayerStatistics


def test_the_bias_of_a_quadratic_loss_is_the_known_one() -> None:
    """The mean loss has ``H_ii step^2 p (1 - p) / 2`` beside the loss of the mean, which straight-through misses."""
    book = Uniform(3).fit(torch.randn(4, 8))
    low = torch.randint(7, (4, 8), dtype=torch.uint8)
    step = book.values(low + 1) - book.values(low)
    weight = book.values(low) + step / 4
    curvature, centre = torch.rand(4, 8) + 0.5, weight - step / 10

    def loss(weights: Mapping[str, Tensor]) -> Tensor:
        return (curvature * (weights["w"] - centre).square()).sum() / 2

    dithered = Dithered(loss, {"w": weight}, {"w": book})
    assert torch.allclose(dithered.steps("w")[0], step) and torch.allclose(
        dithered.steps("w")[1], step.new_full((4, 8), 0.25)
    )
    found = check_gradients(dithered, 600)[0]
    assert found["step"] < 0.25  # no weight crosses a value on its way, so that differences are exact
    through, missed = (float((curvature * step.square()).sum()) * share for share in (0.1, 0.25))
    assert found["straight_through"] == pytest.approx(through, abs=4 * found["straight_through_error"])
    assert found["slope"] == pytest.approx(through + missed, abs=4 * found["slope_error"])
    assert found["bias"] == pytest.approx(-missed, abs=4 * found["bias_error"]) and missed > 8 * found["bias_error"]
    assert found["ratio"] == pytest.approx(0.1 / 0.35, abs=4 * found["ratio_error"])


def test_the_gradient_of_a_linear_loss_is_right_without_noise() -> None:
    slope, weight = torch.randn(4, 8), {"w": torch.rand(4, 8) * 0.8 - 0.4}
    dithered = Dithered(
        lambda weights: (weights["w"] * slope).sum(), weight, {"w": Uniform(8, range="minmax").fit(weight["w"])}
    )
    found = check_gradients(dithered, draws=200)[0]
    assert found["noise"] == pytest.approx(0, abs=1e-9) and found["nearest"] == pytest.approx(1, abs=1e-6)
    assert found["ratio"] == pytest.approx(1, abs=5 * found["ratio_error"] + 0.05)


def test_stochastic_rounding_is_unbiased_with_the_variance_that_is_known() -> None:
    weights = {name: torch.randn(64, 64) for name in ("a", "b", "c")}
    dithered = Dithered(
        lambda _: torch.zeros(()), weights, {name: Uniform(4).fit(one) for name, one in weights.items()}
    )
    for one in check_rounder(dithered, 32):
        assert abs(one["mean_error"]) < 4 and abs(one["noise_like_before"]) < 4
        assert one["variance"] == pytest.approx(1, abs=0.02)
        assert one["variance_of_step"] <= 0.25


class Shared(Stochastic):
    """One that has the same draws for all layers, and always rounds up a little too often."""

    def drawing_for(self, part: str) -> Stochastic:
        return self

    def __call__(self, weight: Tensor, codebook: Codebook, statistics: LayerStatistics) -> Tensor:
        return super().__call__(weight + 0.02, codebook, statistics)


def test_a_rounder_that_is_wrong_is_seen() -> None:
    weights = {name: torch.randn(64, 64) for name in ("a", "b")}
    books: dict[str, Codebook] = {name: Uniform(4).fit(one) for name, one in weights.items()}
    found = check_rounder(Dithered(lambda _: torch.zeros(()), weights, books, Shared()), 8)
    assert abs(found[1]["noise_like_before"]) > 10 and abs(found[0]["mean_error"]) > 10


def test_the_public_call() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    kept = {name: one.clone() for name, one in model.state_dict().items()}
    images, labels = torch.randn(16, 1, 6, 6), torch.randint(3, (16,))
    found = corank.analyse(model, (images, labels), "straight-through", bits=2)
    assert [one["name"] for one in found["layers"]] == ["0", "3"] and found["labelled"]
    assert all(one["slope_error"] > 0 and 0 < one["nearest"] <= 1 for one in found["layers"])
    assert found["layers"] == corank.analyse(model, (images, labels), "straight-through", bits=2)["layers"]
    assert all(torch.equal(one, kept[name]) for name, one in model.state_dict().items())
