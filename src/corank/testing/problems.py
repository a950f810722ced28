"""A search problem small enough to solve in a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from corank.adapters import bits_per_rank, decompose
from corank.calibration import Context, Samples
from corank.codecs import Codec, Uniform
from corank.layers import PreparedModel
from corank.losses import output_distance
from corank.matrix import Geometry
from corank.search import AdaptableLayer, AllocationProblem, CodecCandidates, RateDistortionCurve

__all__ = ["small_problem"]


def small_problem(budget_bits: int, seed: int = 0, adapter_bits: int = 8) -> AllocationProblem:
    """A small ConvNet with random weights in 2 bits: three layers that may get an adapter, one that may not.

    Args:
        budget_bits: what all adapters together may store.
        seed: draws the weights and the samples, and is the problem's.
        adapter_bits: of the factors.

    Its candidates are coded to the nearest values; the first layer is not free to get another codec.
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
    shapes = {name: layer.geometry.matrix_shape for name, layer in layers.items()}
    context = Context(_prepared(model), Samples.of(inputs, 24, 8), output_distance, seed)
    weights = sum(layer.coded.numel() for layer in layers.values()) + fixed.numel()
    problem = AllocationProblem(context, layers, budget_bits, weights, adapter_bits, {"7": fixed})

    def curve(name: str, codec: Codec, _measured: bool = False) -> RateDistortionCurve:
        layer, (groups, rows, columns) = _layer(model.get_submodule(name), adapter_bits, codec), shapes[name]
        stored, lost = codec.size_bits(groups * rows, columns), float(layer.gains.double().sum())
        return RateDistortionCurve(codec, stored, layer.bits_per_rank, lost, layer.gains)

    def recoded(codecs: Mapping[str, Codec], budget_bits: int) -> AllocationProblem:
        again = {n: _layer(model.get_submodule(n), adapter_bits, codecs.get(n, c)) for n, c in plan.items()}
        return replace(problem, layers=again, budget_bits=budget_bits)

    plan: dict[str, Codec] = dict.fromkeys(layers, Uniform(2))
    free = set(list(layers)[1:])
    candidates = CodecCandidates(plan, shapes, free, lambda name, codec: curve(name, codec).lost, curve, recoded)
    return replace(problem, candidates=candidates)


def _prepared(model: nn.Module) -> PreparedModel:
    names = [name for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    targets = {name: model.get_submodule(name) for name in names}
    return PreparedModel(model, targets, {}, (), frozenset((names[0], names[-1])))


def _layer(module: nn.Module, adapter_bits: int, codec: Codec | None = None) -> AdaptableLayer:
    geometry = Geometry.of(module)
    weight = geometry.to_matrix(module.get_parameter("weight").detach())
    codebook = (codec or Uniform(2)).fit(weight.flatten(0, 1))
    coded = codebook.values(codebook.nearest(weight.flatten(0, 1))).reshape(weight.shape)
    directions = decompose(weight - coded, "svd", {})
    cost = bits_per_rank(geometry.matrix_shape, adapter_bits)
    return AdaptableLayer(geometry, cost, coded, directions, directions.energies)
