"""A search problem small enough to solve in a test."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from corank.adapters import bits_per_rank, decompose
from corank.calibration import Samples
from corank.codecs import Codec, Uniform
from corank.losses import output_distance
from corank.matrix import Geometry
from corank.search import AdaptableLayer, Allocation, AllocationProblem, Candidates, RateDistortionCurve

__all__ = ["small_problem"]


def small_problem(budget_bits: int, seed: int = 0, adapter_bits: int = 8) -> AllocationProblem:
    """A small ConvNet with random weights in 2 bits: three layers that may get an adapter, one that may not.

    Args:
        budget_bits: what all adapters together may store.
        seed: draws the weights and the samples, and is the problem's.
        adapter_bits: of the factors.

    Its alternatives are coded to the nearest values; the first layer is not free to get another codec.
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
    problem = AllocationProblem(
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
    shapes = {name: layer.geometry.matrix_shape for name, layer in layers.items()}
    codecs = dict.fromkeys(layers, Uniform(2))
    return replace(problem, alternatives=_Alternatives(codecs, shapes, set(list(layers)[1:]), problem))


@dataclass(frozen=True)
class _Alternatives(Candidates):
    codecs: Mapping[str, Codec]
    shapes: Mapping[str, tuple[int, int, int]]
    free: Collection[str]
    problem: AllocationProblem

    def curves(self, name: str, codecs: Sequence[Codec], measured: bool) -> tuple[RateDistortionCurve, ...]:
        curves = []
        for codec in codecs:
            layer = _layer(self.problem.model.get_submodule(name), self.problem.adapter_bits, codec)
            groups, rows, columns = self.shapes[name]
            stored, lost = codec.size_bits(groups * rows, columns), float(layer.gains.double().sum())
            curves.append(RateDistortionCurve(codec, stored, layer.bits_per_rank, lost, layer.gains))
        return tuple(curves)

    def recoded(self, codecs: Mapping[str, Codec], budget_bits: int) -> AllocationProblem:
        bits, model = self.problem.adapter_bits, self.problem.model
        layers = {
            name: _layer(model.get_submodule(name), bits, codecs.get(name, codec))
            for name, codec in self.codecs.items()
        }
        return replace(self.problem, layers=layers, budget_bits=budget_bits)

    def over(self, found: Allocation) -> int | None:
        return None


def _layer(module: nn.Module, adapter_bits: int, codec: Codec | None = None) -> AdaptableLayer:
    geometry = Geometry.of(module)
    weight = geometry.to_matrix(module.get_parameter("weight").detach())
    codebook = (codec or Uniform(2)).fit(weight.flatten(0, 1))
    coded = codebook.values(codebook.nearest(weight.flatten(0, 1))).reshape(weight.shape)
    directions = decompose(weight - coded, "svd", {})
    return AdaptableLayer(
        geometry, coded, directions, bits_per_rank(geometry.matrix_shape, adapter_bits), directions.energies
    )
