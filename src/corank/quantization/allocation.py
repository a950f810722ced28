"""From a base plan and statistics to the problem that a search solves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from corank.adapters import LowRank, bits_per_rank, decompose, full_rank
from corank.calibration import Samples
from corank.coding.layer import code_layer, layer_view, matrices
from corank.errors import BudgetError
from corank.layers import PreparedModel
from corank.losses import Loss
from corank.plan import LayerPlan, Plan
from corank.search import AdaptableLayer, AllocationProblem
from corank.statistics import LayerStatistics, OutputGradient

__all__ = ["holds_an_adapter", "problem_of", "sensitivity"]


def problem_of(
    prepared: PreparedModel,
    plan: Plan,
    statistics: Mapping[str, LayerStatistics],
    samples: Samples,
    budget: float,
    loss: Loss,
    seed: int,
    progress: Callable[[str, int, int], None] | None = None,
    measures: bool = True,
) -> AllocationProblem:
    """The problem of giving ranks to the layers of ``plan`` (ranks zero).

    Args:
        budget: extra bits per quantized weight.
        measures: code every layer to see what is lost; else weights and directions are zero, and no statistics are
            needed.

    Raises:
        BudgetError: for a budget above zero that is below the cheapest adapter.
    """
    layers, fixed, weights = {}, {}, 0
    widths = {layer.adapter_bits for layer in plan.coded().values()}
    coded = plan.coded()
    for number, (name, layer_plan) in enumerate(coded.items()):
        weight, bias = matrices(prepared.targets[name])
        weights += weight.numel()
        geometry = prepared.geometry(name)
        lossy = torch.zeros(1).expand(weight.shape)
        if measures:
            lossy = code_layer(weight, bias, layer_plan, statistics[name]).code.compose().reshape(weight.shape)
        if layer_plan.may_adapt(geometry.matrix_shape):
            cost = bits_per_rank(geometry.matrix_shape, layer_plan.adapter_bits)
            directions, gains = _nothing(weight.shape)
            if measures:
                view = layer_view(layer_plan, bias is not None, statistics[name])
                directions = decompose(weight - lossy, layer_plan.fit, view)
                gains = directions.energies.cpu() * sensitivity(layer_plan, view)  # they are read one by one
            layers[name] = AdaptableLayer(geometry, lossy, directions, cost, gains)
        else:
            fixed[name] = geometry.from_matrix(lossy)
        if progress is not None and measures:
            progress("measuring what rounding loses", number + 1, len(coded))
    budget_bits = int(budget * weights + 1e-6)
    cheapest = min((layer.bits_per_rank for layer in layers.values()), default=0)
    if 0 < budget_bits < cheapest or (budget > 0 and budget_bits == 0 and cheapest):
        raise BudgetError(
            f"budget={budget:.6g} extra bits per weight are {budget_bits} bits in all, and the cheapest adapter takes "
            f"{cheapest}; give budget=0 for none, or at least {cheapest / weights:.6f}"
        )
    return AllocationProblem(
        prepared.model, samples, layers, fixed, budget_bits, weights, max(widths), loss, seed, progress
    )


def holds_an_adapter(prepared: PreparedModel, plan: Plan, budget: float) -> bool:
    """Whether ``budget`` extra bits per quantized weight pay for one direction of any layer that may get one."""
    coded = plan.coded()
    shapes = {name: prepared.geometry(name).matrix_shape for name in coded}
    costs = [
        bits_per_rank(shapes[name], layer.adapter_bits)
        for name, layer in coded.items()
        if layer.may_adapt(shapes[name])
    ]
    weights = sum(math.prod(shape) for shape in shapes.values())
    return bool(costs) and int(budget * weights + 1e-6) >= min(costs)


def _nothing(shape: torch.Size) -> tuple[LowRank, Tensor]:
    groups, rows, columns = shape
    rank, zero = full_rank((groups, rows, columns)), torch.zeros(1)
    left, right = zero.expand(groups, rows, rank), zero.expand(groups, rank, columns)
    return LowRank(left, right, zero.expand(rank)), zero.expand(rank)


def sensitivity(plan: LayerPlan, view: LayerStatistics) -> float:
    """The mean squared gradient of an output element, for fits that do not weigh by the loss themselves."""
    gradient = view.get(OutputGradient)
    if plan.fit != "output" or not isinstance(gradient, OutputGradient):
        return 1.0
    return float(gradient.matrix.diagonal(dim1=1, dim2=2).mean())
