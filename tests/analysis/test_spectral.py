"""Shapley values against games whose values are known; bands that add up to the image."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import nn

import corank
from corank.analysis.spectral import band_parts, coalitions, shapley_values, spectral_score
from corank.errors import DataError


def test_values_sum_to_the_whole() -> None:
    values = torch.randn(256, 5, dtype=torch.float64)
    found = shapley_values(values)
    assert found.shape == (8, 5)
    assert torch.allclose(found.sum(0), values[-1] - values[0], atol=1e-12)


def test_they_are_the_mean_over_all_orders_in_which_players_come() -> None:
    values = torch.randn(16, dtype=torch.float64)
    expected = torch.zeros(4, dtype=torch.float64)
    orders = list(permutations(range(4)))
    for order in orders:
        there = 0
        for player in order:
            expected[player] += (values[there | 1 << player] - values[there]) / len(orders)
            there |= 1 << player
    assert torch.allclose(shapley_values(values), expected, atol=1e-13)


def test_players_who_add_what_they_are_worth_get_that() -> None:
    worth = torch.tensor([1.0, -2.0, 0.0, 3.5], dtype=torch.float64)
    assert torch.allclose(shapley_values(coalitions(4).double() @ worth), worth, atol=1e-13)


def test_bands_add_up_to_the_image_and_are_orthogonal() -> None:
    images = torch.randn(2, 3, 20, 17, dtype=torch.float64)
    parts = band_parts(images)
    assert torch.allclose(parts.sum(0), images, atol=1e-12)
    flat = parts.flatten(1)
    inner = flat @ flat.T
    assert torch.allclose(inner, inner.diagonal().diag(), atol=1e-9)
    steady = band_parts(torch.ones(1, 1, 16, 16, dtype=torch.float64))
    assert (
        torch.allclose(steady[0], torch.ones(1, 1, 16, 16, dtype=torch.float64))
        and float(steady[1:].abs().max()) < 1e-12
    )


def test_the_score_is_1_where_all_rests_on_the_first_band() -> None:
    first, last = torch.eye(8)[0], torch.eye(8)[7]
    assert spectral_score(first) == 1 and spectral_score(last) == pytest.approx(0.75**7)


class Checker(nn.Module):
    """Answers by the mean alone, or by the finest checkerboard alone."""

    def __init__(self, fine: bool) -> None:
        super().__init__()
        sign = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(8, 8) if fine else torch.ones(16, 16)
        self.layer, self.head = nn.Linear(256, 1), nn.Linear(1, 2)
        with torch.no_grad():
            self.layer.weight.copy_(sign.reshape(1, -1) / 64)
            self.head.weight.copy_(torch.tensor([[2.0], [-2.0]]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(images[:, 0].flatten(1)))


@pytest.mark.parametrize("fine", [False, True])
def test_the_band_that_a_network_looks_at_has_all_the_importance(fine: bool) -> None:
    found = corank.analyse(Checker(fine), torch.randn(8, 1, 16, 16), "spectral", bits=4)
    importance = torch.tensor(found["float"]["importance"])
    seen = 7 if fine else 0
    assert int(importance.argmax()) == seen and float(importance[[i for i in range(8) if i != seen]].abs().max()) < 1e-6
    assert sum(found["float"]["importance"]) == pytest.approx(found["float"]["all"] - found["float"]["none"], abs=1e-9)
    assert sum(found["quantized"]["importance"]) == pytest.approx(
        found["quantized"]["all"] - found["quantized"]["none"], abs=1e-9
    )


def test_what_are_no_images() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(DataError, match=r"images \(N, C, H, W\)"):
        corank.analyse(model, torch.randn(8, 4), "spectral")
