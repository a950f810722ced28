"""Carries a plan out, one layer at a time: codec, rounder, residual, adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from corank.adapters import CodedLowRank, LowRank, code_factors, decompose, full_rank
from corank.coded_weight import CodedWeight
from corank.layers import LayerCode, Prepared, coded_class, replace_module
from corank.matrix import Geometry
from corank.plan import LayerPlan, Plan
from corank.statistics import Gram, LayerStatistics, need

__all__ = ["CodedResult", "apply_plan", "code_layer", "layer_view"]


@dataclass(frozen=True)
class CodedResult:
    """One layer, coded.

    Attributes:
        code: codes, codebook and adapter.
        bias: the new bias ``(G * R,)`` float32, or None for a layer without one.
        relative_output_error: ``mean |y - y_q|^2 / mean |y|^2`` on the calibration inputs.
        energies: error along each adapter direction, before the adapter, descending.
    """

    code: LayerCode
    bias: Tensor | None
    relative_output_error: float
    energies: Tensor


def layer_view(plan: LayerPlan, has_bias: bool, statistics: LayerStatistics) -> LayerStatistics:
    """The statistics as the plan wants them seen: centred where the bias will take up the mean error."""
    if not (plan.bias_correction and has_bias):
        return statistics
    return {**statistics, Gram: need(statistics, Gram, "bias correction").centred()}


def code_layer(weight: Tensor, bias: Tensor | None, plan: LayerPlan, statistics: LayerStatistics) -> CodedResult:
    """Codes one layer.

    Args:
        weight: ``(G, R, C)`` float32.
        bias: ``(G * R,)`` float32 or None.
        plan: what to do; its codec is not None.
        statistics: of the layer, holding at least a :class:`~corank.statistics.Gram`.

    Returns:
        The round of least output error, if the plan asks for several.
    """
    view = layer_view(plan, bias is not None, statistics)
    gram = need(view, Gram, "code_layer")
    shape = (weight.shape[0], weight.shape[1], weight.shape[2])
    rank = min(plan.rank, full_rank(shape))
    best: tuple[float, CodedWeight, CodedLowRank | None, Tensor] | None = None
    adapter: CodedLowRank | None = None
    for _ in range(plan.rounds if rank else 1):
        target = weight if adapter is None else weight - adapter.product().reshape(shape)
        coded = _code_weight(target.flatten(0, 1), plan, view)
        directions = decompose(weight - coded.decode().reshape(shape), plan.fit, view)
        adapter = code_factors(directions.truncate(rank), plan.adapter_bits) if rank else None
        whole = LayerCode(_codec(plan), coded, adapter, plan.adapter_bits).compose().reshape(shape)
        error = float(_energy(weight - whole, gram.matrix))
        if best is None or error < best[0]:
            best = (error, coded, adapter, directions.energies)
    assert best is not None
    _, coded, adapter, energies = best
    code = LayerCode(_codec(plan), coded, adapter, plan.adapter_bits)
    return _finish(code, weight, bias, plan, need(statistics, Gram, "code_layer"), energies)


def residual_directions(weight: Tensor, code: LayerCode, plan: LayerPlan, view: LayerStatistics) -> LowRank:
    """The full-rank adapter of what ``code`` (of rank 0) leaves of ``weight`` ``(G, R, C)``."""
    return decompose(weight - code.weight.decode().reshape(weight.shape), plan.fit, view)


def apply_plan(
    prepared: Prepared,
    plan: Plan,
    statistics: Mapping[str, LayerStatistics],
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, CodedResult]:
    """Codes every planned layer of the prepared copy and puts the coded layers in place.

    Args:
        prepared: its model is changed.
        plan: layer name to what to do; layers it does not name stay float.
        statistics: by layer name.
        progress: called with (what, done, total).
    """
    results: dict[str, CodedResult] = {}
    coded = plan.coded()
    for number, (name, layer_plan) in enumerate(coded.items()):
        layer = prepared.targets[name]
        weight, bias = matrices(layer)
        try:
            result = code_layer(weight, bias, layer_plan, statistics[name])
        except Exception as error:
            error.add_note(f"while coding layer {name!r}")
            raise
        results[name] = result
        replace_module(prepared.model, layer, coded_module(layer, result))
        if progress is not None:
            progress("coding", number + 1, len(coded))
    return results


def matrices(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight ``(G, R, C)`` and bias ``(G * R,)`` of a float layer, detached, float32."""
    weight = Geometry.of(layer).to_matrix(layer._parameters["weight"].detach().float())  # pyright: ignore
    bias = layer._parameters.get("bias")
    return weight, None if bias is None else bias.detach().float()


def coded_module(layer: nn.Module, result: CodedResult) -> nn.Module:
    """The coded counterpart of ``layer`` holding ``result``."""
    adapter = result.code.adapter
    rank = adapter.rank if adapter else 0
    module = coded_class(layer)(layer, result.code.codec, rank, result.code.adapter_bits, result.bias is not None)
    module.fill(result.code, result.bias)
    return module


def _code_weight(target: Tensor, plan: LayerPlan, view: LayerStatistics) -> CodedWeight:
    codebook = _codec(plan).fit(target)
    return CodedWeight(plan.rounder(target, codebook, view), codebook)


def _codec(plan: LayerPlan):  # noqa: ANN202
    if plan.codec is None:
        raise ValueError("a layer without a codec stays float and is not coded")
    return plan.codec


def _energy(matrix: Tensor, second_moment: Tensor) -> Tensor:
    """``sum_g tr(M Sigma M^T)``."""
    return ((matrix @ second_moment) * matrix).sum()


def _finish(
    code: LayerCode, weight: Tensor, bias: Tensor | None, plan: LayerPlan, gram: Gram, energies: Tensor
) -> CodedResult:
    lost = weight - code.compose().reshape(weight.shape)
    mean_error = (lost @ gram.mean[:, :, None]).flatten()
    new_bias = bias
    if bias is not None:
        new_bias = bias + mean_error if plan.bias_correction else bias
        new_bias = new_bias.to(torch.float16).float()  # as it is stored
    shift = torch.zeros_like(mean_error) if bias is None or new_bias is None else bias - new_bias
    error = _energy(lost, gram.matrix) + (2 * mean_error * shift + shift.square()).sum()
    mean_output = (weight @ gram.mean[:, :, None]).flatten()
    offset = torch.zeros_like(mean_output) if bias is None else bias
    output = _energy(weight, gram.matrix) + (2 * mean_output * offset + offset.square()).sum()
    relative = float(error.clamp(min=0) / output.clamp(min=1e-30))
    return CodedResult(code, new_bias, relative, energies)
