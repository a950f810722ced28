"""A search problem small enough to solve in a test."""

from __future__ import annotations

import torch
from torch import nn

from corank.adapters import bits_per_rank, decompose
from corank.calibration import Samples
from corank.codecs import Uniform
from corank.losses import output_distance
from corank.matrix import Geometry
from corank.search import Problem, SearchLayer

__all__ = ["small_problem"]


def small_problem(budget_bits: int, seed: int = 0, adapter_bits: int = 8) -> Problem:
    """A small ConvNet with random weights in 2 bits: three layers that may get an adapter, one that may not.

    Args:
        budget_bits: what all adapters together may store.
        seed: draws the weights and the samples, and is the problem's.
        adapter_bits: of the factors.
    """
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, groups=2, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 10),
        nn.ReLU(),
        nn.Linear(10, 4),
    ).eval()
    for parameter in model.parameters():
        bound = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * bound * 2)
    layers = {name: _layer(model.get_submodule(name), adapter_bits) for name in ("0", "2", "5")}
    last = _layer(model.get_submodule("7"), adapter_bits)
    fixed = last.geometry.from_matrix(last.coded)
    inputs = torch.randn(24, 2, 6, 6, generator=generator)
    return Problem(
        model=model,
        samples=Samples.of(inputs, 24, 8),
        layers=layers,
        fixed={"7": fixed},
        budget_bits=budget_bits,
        weights=sum(layer.coded.numel() for layer in layers.values()) + fixed.numel(),
        adapter_bits=adapter_bits,
        loss=output_distance,
        seed=seed,
    )


def _layer(module: nn.Module, adapter_bits: int) -> SearchLayer:
    geometry = Geometry.of(module)
    weight = geometry.to_matrix(module.get_parameter("weight").detach())
    codebook = Uniform(2).fit(weight.flatten(0, 1))
    coded = codebook.values(codebook.nearest(weight.flatten(0, 1))).reshape(weight.shape)
    directions = decompose(weight - coded, "svd", {})
    return SearchLayer(
        geometry, coded, directions, bits_per_rank(geometry.matrix_shape, adapter_bits), directions.energies
    )
