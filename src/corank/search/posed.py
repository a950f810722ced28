"""From a plan without ranks to the problem of finding them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from corank.adapters import bits_per_rank
from corank.calibration import Context
from corank.coding.layer import code_and_decompose, layer_view
from corank.errors import BudgetError
from corank.layers import PreparedModel
from corank.plan import LayerPlan, Plan
from corank.search.problem import AdaptableLayer, AllocationProblem
from corank.statistics import LayerStatistics, OutputGradient

__all__ = ["check_budget", "extra_bits", "holds_an_adapter", "problem_of", "sensitivity"]


def problem_of(
    plan: Plan, budget_bits: int, context: Context, statistics: Mapping[str, LayerStatistics] | None = None
) -> AllocationProblem:
    """The problem of giving ranks to the layers of ``plan`` (ranks zero).

    Args:
        plan: of the context's model.
        budget_bits: of all adapters.
        context: of the run.
        statistics: by layer name: every layer is coded to see what is lost; None: nothing is measured.
    """
    layers: dict[str, AdaptableLayer] = {}
    fixed: dict[str, Tensor] = {}
    coded, prepared = plan.coded(), context.prepared
    for number, (name, layer) in enumerate(coded.items()):
        geometry = prepared.geometry(name)
        adaptable = layer.may_adapt(geometry.matrix_shape) and name not in prepared.blind
        cost = bits_per_rank(geometry.matrix_shape, layer.adapter_bits)
        if statistics is None:
            if adaptable:
                layers[name] = AdaptableLayer(geometry, cost)
            continue
        weight, bias, known = prepared.weight(name), prepared.bias(name), statistics[name]
        result, directions = code_and_decompose(weight, bias, layer.on_layer(name), known, adaptable)
        lossy = result.code.compose().reshape(weight.shape)
        if adaptable and directions is not None:
            gains = directions.energies.cpu() * sensitivity(layer, layer_view(layer, bias is not None, known))
            layers[name] = AdaptableLayer(geometry, cost, lossy, directions, gains)
        else:
            fixed[name] = geometry.from_matrix(lossy)
        context.progress("measuring what rounding loses", number + 1, len(coded))
    widest = max(layer.adapter_bits for layer in coded.values())
    return AllocationProblem(context, layers, budget_bits, _weights(prepared, plan), widest, fixed)


def extra_bits(prepared: PreparedModel, plan: Plan, budget: float) -> int:
    """All bits that ``budget`` extra bits per quantized weight are."""
    return int(budget * _weights(prepared, plan) + 1e-6)


def holds_an_adapter(prepared: PreparedModel, plan: Plan, budget: float) -> bool:
    """Whether ``budget`` extra bits per quantized weight pay for one direction of any layer that may get one."""
    cheapest = _cheapest(prepared, plan)
    return 0 < cheapest <= extra_bits(prepared, plan, budget)


def check_budget(prepared: PreparedModel, plan: Plan, budget: float) -> None:
    """Raises BudgetError for a budget above zero that is below the cheapest adapter."""
    cheapest, given = _cheapest(prepared, plan), extra_bits(prepared, plan, budget)
    if cheapest and budget > 0 and given < cheapest:
        raise BudgetError(
            f"budget={budget:.6g} extra bits per weight are {given} bits in all, and the cheapest adapter takes "
            f"{cheapest}; give budget=0 for none, or at least {cheapest / _weights(prepared, plan):.6f}"
        )


def sensitivity(plan: LayerPlan, view: LayerStatistics) -> float:
    """The mean squared gradient of an output element, for fits that do not weigh by the loss themselves."""
    gradient = view.get(OutputGradient)
    if plan.fit != "output" or not isinstance(gradient, OutputGradient):
        return 1.0
    return float(gradient.matrix.diagonal(dim1=1, dim2=2).mean())


def _cheapest(prepared: PreparedModel, plan: Plan) -> int:
    """Bits of the cheapest direction of any layer that may get an adapter; 0 where none may."""
    shapes = {name: prepared.geometry(name).matrix_shape for name in plan.coded()}
    costs = [
        bits_per_rank(shapes[name], layer.adapter_bits)
        for name, layer in plan.coded().items()
        if layer.may_adapt(shapes[name]) and name not in prepared.blind
    ]
    return min(costs, default=0)


def _weights(prepared: PreparedModel, plan: Plan) -> int:
    return sum(math.prod(prepared.geometry(name).matrix_shape) for name in plan.coded())
