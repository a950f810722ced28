"""Operator norms against the dense matrix of the map, written down column by column."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from corank.errors import ModelError
from corank.matrix import Geometry
from corank.operators import apply_operator, norm_bound, norm_gradient, operator_norm

torch.manual_seed(5)
LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "zeros": (nn.Conv2d(2, 3, 3, padding=1), (2, 6, 6)),
    "valid": (nn.Conv2d(2, 3, 3), (2, 6, 5)),
    "strided": (nn.Conv2d(3, 4, 3, stride=2, padding=1), (3, 8, 8)),
    "wide padding": (nn.Conv2d(2, 2, 3, padding=4), (2, 4, 4)),
    "grouped": (nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 5, 5)),
    "dilated": (nn.Conv2d(2, 2, 3, padding=2, dilation=2), (2, 6, 6)),
    "circular": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 6, 6)),
    "circular, too wide": (nn.Conv2d(2, 3, 3, padding=3, padding_mode="circular"), (2, 5, 5)),
    "replicate": (nn.Conv2d(2, 3, 3, padding=2, padding_mode="replicate"), (2, 5, 5)),
    "reflect": (nn.Conv2d(2, 3, 5, padding=2, padding_mode="reflect"), (2, 5, 5)),
    "same": (nn.Conv2d(2, 3, (1, 3), padding="same"), (2, 5, 6)),
    "pointwise": (nn.Conv2d(3, 4, 1, stride=2), (3, 6, 6)),
    "1d": (nn.Conv1d(3, 2, 3, padding=1), (3, 8)),
    "3d": (nn.Conv3d(1, 2, 3, padding=1), (1, 3, 4, 3)),
    "transposed": (nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1), (3, 4, 4)),
    "transposed, grouped": (nn.ConvTranspose2d(4, 4, 2, groups=2), (4, 4, 3)),
    "linear": (nn.Linear(7, 5), (7,)),
}  # fmt: skip


def dense(layer: nn.Module, size: tuple[int, ...]) -> Tensor:
    """The matrix of the layer without bias, by torch's own forward."""
    basis = torch.eye(int(torch.Size(size).numel()), dtype=torch.float64).reshape(-1, *size)
    with torch.no_grad():
        return (layer(basis) - layer(torch.zeros_like(basis))).flatten(1).T


def parts(layer: nn.Module) -> tuple[Geometry, Tensor]:
    return Geometry.of(layer), layer.get_parameter("weight").detach()


@pytest.mark.parametrize("name", LAYERS)
def test_the_norm_is_that_of_the_dense_matrix(name: str) -> None:
    layer, size = LAYERS[name]
    layer.double()
    geometry, weight = parts(layer)
    expected = float(torch.linalg.matrix_norm(dense(layer, size), 2))
    found = operator_norm(geometry, weight, size, 1000)
    assert found.value == pytest.approx(expected, rel=1e-7)
    assert operator_norm(geometry, weight, size, 5).value <= expected * (1 + 1e-12)
    bound = norm_bound(geometry, weight, size)
    exact = name in ("circular", "circular, strided", "linear", "pointwise")
    assert bound == pytest.approx(expected, rel=1e-9) if exact else expected <= bound * (1 + 1e-12)
    loose = {"replicate": 3, "reflect": 3, "3d": 2, "circular, too wide": 2.2, "circular, strided, odd": 2.2}
    assert bound < loose.get(name, 1.4) * expected  # it says something


def test_the_order_of_the_norms_that_are_known() -> None:
    """The reshaped kernel's norm is below the real one, and the real one below the bound."""
    torch.manual_seed(3)
    layer, size = nn.Conv2d(2, 3, 3, padding=1).double(), (2, 6, 6)
    geometry, weight = parts(layer)
    reshaped = float(torch.linalg.matrix_norm(weight.flatten(1), 2))
    circular = norm_bound(Geometry(**{**geometry.__dict__, "padding_mode": "circular"}), weight, size)
    zeros = operator_norm(geometry, weight, size, 2000).value
    assert reshaped < zeros < circular
    assert zeros < norm_bound(geometry, weight, size) < 3 * reshaped


def test_a_scaled_weight_has_a_scaled_norm() -> None:
    geometry, weight = parts(LAYERS["strided"][0].double())
    one, three = (operator_norm(geometry, factor * weight, (3, 8, 8), 200).value for factor in (1, -3))
    assert three == pytest.approx(3 * one, rel=1e-12)


@pytest.mark.parametrize("name", ["zeros", "strided", "transposed", "linear", "reflect"])
def test_the_error_of_the_first_order_prediction_falls_with_the_square_of_the_step(name: str) -> None:
    layer, size = LAYERS[name]
    geometry, weight = parts(layer.double())
    norm = operator_norm(geometry, weight, size, 2000)
    gradient = norm_gradient(geometry, weight, norm)
    direction = torch.randn_like(weight)
    errors = []
    for step in (4e-3, 2e-3, 1e-3):
        moved = operator_norm(geometry, weight + step * direction, size, 2000, norm.right).value
        errors.append(abs(moved - norm.value - step * float((gradient * direction).sum())))
    assert errors[0] > 0
    for larger, smaller in itertools.pairwise(errors):
        assert larger / smaller == pytest.approx(4, rel=0.25)


def test_the_gradient_of_a_matrix_is_the_outer_product_of_its_singular_vectors() -> None:
    geometry, weight = parts(nn.Linear(6, 4).double())
    u, _, v = torch.linalg.svd(weight)
    found = norm_gradient(geometry, weight, operator_norm(geometry, weight, (6,), 500))
    assert torch.allclose(found, torch.outer(u[:, 0], v[0]), atol=1e-5)


def test_a_change_of_the_weight_moves_the_norm_by_at_most_its_own_norm() -> None:
    """Weyl's inequality, for the operators."""
    geometry, weight = parts(LAYERS["zeros"][0].double())
    rounded = (weight * 4).round() / 4
    norms: list[Any] = [
        operator_norm(geometry, one, (2, 6, 6), 2000).value for one in (weight, rounded, weight - rounded)
    ]
    assert 0 < abs(norms[0] - norms[1]) <= norms[2]


def test_tables_have_no_operator() -> None:
    table = nn.Embedding(8, 4)
    for call in (norm_bound, operator_norm):
        with pytest.raises(ModelError, match="looked up"):
            call(Geometry.of(table), table.weight, (4,))


def test_the_layers_own_forward_is_what_is_applied() -> None:
    for layer, size in LAYERS.values():
        inputs = torch.randn(2, *size, dtype=torch.float64)
        geometry, weight = parts(layer.double())
        expected = layer(inputs) - layer(torch.zeros_like(inputs))
        assert torch.allclose(apply_operator(geometry, weight, inputs), expected, atol=1e-12)
