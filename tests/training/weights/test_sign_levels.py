"""Sums of signed sizes: their gradients exactly, their least squares fit never worse."""

from __future__ import annotations

import itertools

import pytest
import torch

from corank.training.weights import sign_levels
from corank.training.weights.sign_levels import fit_levels, levels_of, of_signs


@pytest.mark.parametrize("shared", [False, True])
def test_a_sizes_gradient_is_the_numerical_one_with_signs_as_they_are(shared: bool) -> None:
    sizes = torch.rand(1 if shared else 3, 2, dtype=torch.float64) + 0.1
    latent = torch.randn(2, 3, 5, dtype=torch.float64).requires_grad_()
    weighing = torch.randn(3, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda sizes: (of_signs(sizes, latent.detach()) * weighing).sum(), sizes.requires_grad_()
    )
    (of_signs(sizes, latent) * weighing).sum().backward()
    signs = torch.where(latent >= 0, 1.0, -1.0).double()
    rows = (signs * weighing).sum(2).T
    assert sizes.grad is not None and latent.grad is not None
    assert torch.allclose(sizes.grad, rows.sum(0, keepdim=True) if shared else rows)
    wanted = sizes.detach().T[:, :, None] * weighing * (latent.detach().abs() <= 1)
    assert torch.equal(latent.grad, wanted.expand(2, 3, 5))
    assert bool((latent.grad == 0).any() and (latent.grad != 0).any())


def test_the_sign_of_zero_is_one() -> None:
    assert float(of_signs(torch.ones(1, 1), torch.zeros(1, 1, 1))) == 1.0
    assert float(of_signs(torch.ones(1, 1), -torch.zeros(1, 1, 1))) == 1.0


def test_levels_are_all_sums() -> None:
    found = levels_of(torch.tensor([[4.0, 2.0, 0.5]]))[0].sort().values
    wanted = sorted(a * 4 + b * 2 + c * 0.5 for a, b, c in itertools.product((-1, 1), repeat=3))
    assert found.tolist() == wanted


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("per", ["row", "layer"])
def test_more_rounds_never_lose(bits: int, per: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(6, 50) * torch.rand(6, 1)
    weight[2] = 0
    weight[3, ::2] = 0
    errors = []
    for rounds in (0, 1, 2, 4, 50):
        monkeypatch.setattr(sign_levels, "_ROUNDS", rounds)
        sizes, latent = fit_levels(weight, bits, per)
        errors.append(float((of_signs(sizes, latent) - weight).square().sum()))
    assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(errors))
    assert bits == 1 or errors[-1] < errors[0]


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_signs_are_those_of_the_nearest_level_and_firm_where_it_is_far_to_turn_them(bits: int) -> None:
    weight = torch.randn(4, 40)
    weight[0, :5] = 0
    sizes, latent = fit_levels(weight, bits)
    nearest = (weight[:, :, None] - levels_of(sizes)[:, None]).abs().amin(2)
    assert torch.allclose((of_signs(sizes, latent) - weight).abs(), nearest, atol=1e-6)
    assert bool((sizes > 0).all() and (sizes.diff(dim=1) <= 0).all())
    assert bool((latent.abs() >= 0.1 - 1e-6).all() and (latent.abs() <= 1 + 1e-6).all())
    if bits == 1:
        assert torch.allclose(latent.abs(), (0.1 + 0.9 * weight.abs() / sizes).clamp(max=1.0)[None], atol=1e-5)


def test_one_bit_is_the_sign_and_the_mean_magnitude() -> None:
    weight = torch.randn(5, 30)
    sizes, latent = fit_levels(weight, 1)
    assert torch.allclose(sizes, weight.abs().mean(1, keepdim=True), rtol=1e-4)
    assert torch.equal(latent[0] > 0, weight >= 0)
