"""QPAN: untrained it is ADMM; coded and trained it is a network like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.models.proximal import proximal_l1
from corank.models.qpan import QPAN, ProximalAverage
from corank.training.recipes import chosen_recipe


@pytest.fixture(scope="module")
def matrices() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    difference = torch.eye(16) - torch.eye(16).roll(1, 1).tril()
    return torch.randn(8, 16) / 8**0.5, difference


def admm(y: Tensor, a: Tensor, d: Tensor, steps: int, threshold: float) -> Tensor:
    """The iteration as a textbook writes it."""
    system = a.T @ a + d.T @ d
    u = v = torch.zeros(len(y), len(d))
    for _ in range(steps):
        x = torch.linalg.solve(system, (y @ a + (u - v) @ d).T).T
        u = proximal_l1(x @ d.T + v, torch.tensor(threshold))
        v = v + x @ d.T - u
    return torch.linalg.solve(system, (y @ a + (u - v) @ d).T).T


def test_untrained_with_one_penalty_it_is_admm(matrices: tuple[Tensor, Tensor]) -> None:
    a, d = matrices
    y = torch.randn(5, 8)
    network = QPAN(a, d, 6, ProximalAverage(("l1",), 0.1))
    assert torch.allclose(network(y), admm(y, a, d, 6, 0.1), atol=1e-5)


def test_an_average_with_all_its_weight_on_one_map_is_that_map() -> None:
    average = ProximalAverage(("mcp", "l1"), 0.3)
    with torch.no_grad():
        average.share.copy_(torch.tensor([-200.0, 0.0]))
    z = torch.linspace(-2, 2, 101)[:, None]
    assert torch.allclose(average(z), proximal_l1(z, torch.tensor(0.3)), atol=1e-6)


def test_trains_coded_and_saves(matrices: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    a, d = matrices
    torch.manual_seed(1)
    x = (torch.randn(256, 16) * (torch.rand(256, 16) < 0.15)).cumsum(1)
    y = x @ a.T
    recipe = chosen_recipe("stats-4bit").replaced(loss="labels", precision="float32")
    pairs = [(y[i : i + 32], x[i : i + 32]) for i in range(0, 256, 32)]
    network = QPAN(a, d, 3)
    small = corank.train(network, pairs, recipe, iterations=60, batch_size=32, loss=nn.functional.mse_loss)
    start = corank.train(network, pairs, recipe, iterations=0, batch_size=32, loss=nn.functional.mse_loss)
    assert (small(y) - x).square().mean() < 0.9 * (start(y) - x).square().mean()
    corank.save(small, tmp_path / "qpan.safetensors")
    again = corank.load(tmp_path / "qpan.safetensors", QPAN(a, d, 3))
    assert torch.equal(again(y), small(y))


def test_says_what_does_not_fit(matrices: tuple[Tensor, Tensor]) -> None:
    a, d = matrices
    with pytest.raises(corank.ModelError, match=r"\(16, 64\)"):
        QPAN(a, d[:, :5])
    with pytest.raises(corank.ModelError, match="positive rho"):
        QPAN(a, d, rho=0.0)
    with pytest.raises(corank.ModelError, match="more rows"):
        QPAN(a, d[:4])
    with pytest.raises(corank.ModelError, match="scad"):
        ProximalAverage(("l2",))
