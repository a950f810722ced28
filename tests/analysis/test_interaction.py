"""The properties of the local interaction basis, exact in float64; and which directions matter on a network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.analysis.interaction import interaction_basis, principal_directions


def moments(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs, Jacobians ``(N, outputs, d)`` and the second moments of both."""
    torch.manual_seed(seed)
    inputs = torch.randn(200, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    jacobians = torch.randn(200, 4, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    return inputs, jacobians, inputs.T @ inputs / 200, torch.einsum("noi,noj->ij", jacobians, jacobians) / 200


def test_the_gram_is_diagonal_and_the_jacobian_white() -> None:
    inputs, jacobians, gram, moment = moments()
    basis = interaction_basis(gram, moment)
    coordinates = inputs @ basis.into
    diagonal = basis.importance.diag()
    assert float((coordinates.T @ coordinates / 200 - diagonal).abs().max()) < 1e-10 * float(basis.importance[0])
    white = torch.einsum("kd,nod,noe,le->kl", basis.back, jacobians, jacobians, basis.back) / 200
    assert torch.allclose(white, torch.eye(6, dtype=torch.float64), atol=1e-10)
    assert torch.allclose(coordinates @ basis.back, inputs, atol=1e-10)
    assert bool((basis.importance.diff() <= 0).all())


def test_an_absorbed_linear_map_changes_no_importance() -> None:
    _, _, gram, moment = moments()
    turned = torch.randn(6, 6, dtype=torch.float64)
    back = torch.linalg.inv(turned)
    other = interaction_basis(turned.T @ gram @ turned, back @ moment @ back.T)
    assert torch.allclose(other.importance, interaction_basis(gram, moment).importance, rtol=1e-8)


def test_dependent_inputs_and_those_that_nothing_reads_are_no_directions() -> None:
    inputs, _, _, _ = moments()
    doubled = torch.cat([inputs, inputs[:, :2]], 1)
    weight = torch.randn(3, 8, dtype=torch.float64)
    basis = interaction_basis(doubled.T @ doubled / 200, weight.T @ weight)
    assert basis.into.shape == (8, 3)
    kept = doubled @ basis.projection(3)
    assert torch.allclose(kept @ weight.T, doubled @ weight.T, atol=1e-9)  # nothing is lost of what is read
    assert principal_directions(doubled.T @ doubled / 200).needed(1 - 1e-9) == 6


class Narrow(nn.Module):
    """Its second layer reads little of what varies most."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 16, bias=False), nn.Linear(16, 4)
        loud = torch.ones(16)
        loud[:12] = 30.0
        with torch.no_grad():
            self.first.weight.copy_(torch.diag(loud))
            self.second.weight.zero_()
            self.second.weight[:, 12:] = 3 * torch.eye(4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.second(self.first(inputs))


def test_the_basis_finds_what_is_read_where_principal_directions_find_what_is_loud() -> None:
    found = corank.analyse(Narrow(), torch.randn(128, 16), "interaction")
    first, second = found["layers"]
    # of four classes log-probabilities have three directions: what is added to all logits is no answer
    assert (first["interaction"], second["interaction"]) == (3, 3)
    assert second["principal"] == 12
    at = found["kept"].index(0.25)
    assert found["interaction"][at] == 100 and found["principal"][at] < 60
    assert found["interaction"][-1] == found["principal"][-1] == 100


def test_branches_and_convolutions() -> None:
    """Layers beside each other: the one that runs next need not read what the first gives."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(8, 4, 1)
            self.last, self.unread = nn.Linear(8, 3), nn.Linear(8, 3)

        def forward(self, images: Tensor) -> Tensor:
            joined = torch.cat([self.one(images), self.two(images)], 1).relu().mean((2, 3))
            self.unread(joined)
            return self.last(joined)

    found = corank.analyse(Branches(), torch.randn(32, 8, 5, 5), "interaction")
    assert [one["name"] for one in found["layers"]] == ["one", "two", "last"]
    assert "hangs on its inputs" in found["no_theory"]["unread"]
    assert found["interaction"][-1] == pytest.approx(100)
