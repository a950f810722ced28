"""Proximal maps against a minimiser on a grid."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from corank.models.proximal import MCP_GAMMA, PROXIMAL, SCAD_A


def penalty(name: str, u: Tensor, t: float) -> Tensor:
    """Each penalty as it is defined, times the step."""
    size = u.abs()
    if name == "l1":
        return t * size
    if name == "mcp":
        return torch.where(
            size <= MCP_GAMMA * t, t * size - size**2 / (2 * MCP_GAMMA), MCP_GAMMA * t * t / 2 + 0 * size
        )
    middle = (2 * SCAD_A * t * size - size**2 - t * t) / (2 * (SCAD_A - 1))
    flat = t * t * (SCAD_A + 1) / 2 + 0 * size
    return torch.where(size <= t, t * size, torch.where(size <= SCAD_A * t, middle, flat))


@pytest.mark.parametrize("name", sorted(PROXIMAL))
@pytest.mark.parametrize("threshold", [0.1, 0.7])
def test_is_the_minimiser_on_a_grid(name: str, threshold: float) -> None:
    grid = torch.linspace(-4, 4, 80001, dtype=torch.float64)
    for z in torch.linspace(-3.9, 3.9, 41, dtype=torch.float64):
        best = grid[((grid - z) ** 2 / 2 + penalty(name, grid, threshold)).argmin()]
        found = PROXIMAL[name](z, torch.tensor(threshold, dtype=torch.float64))
        assert abs(found - best) < 2e-4, (z, found, best)


@pytest.mark.parametrize("name", sorted(PROXIMAL))
def test_is_odd_and_monotone(name: str) -> None:
    z = torch.linspace(-5, 5, 10001)
    found = PROXIMAL[name](z, torch.tensor(0.6))
    assert torch.allclose(found, -PROXIMAL[name](-z, torch.tensor(0.6)))
    assert bool((found.diff() >= -1e-6).all())
    assert torch.equal(PROXIMAL[name](z, torch.tensor(0.0)), z)
