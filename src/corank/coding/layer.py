"""Carries one layer's plan out: codec, rounder, residual, adapter, bias."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from corank.adapters import CodedLowRank, LowRank, code_factors, decompose, full_rank
from corank.codecs import Codebook, Codec
from corank.coded_weight import CodedWeight
from corank.coding.place import code_at, coding_device, directions_at, statistics_at
from corank.layers import CodedLayerState
from corank.plan import LayerPlan
from corank.rounding.pruned import Pruned, smallest
from corank.rounding.refit import alternate, refit_scales
from corank.statistics import CrossMoments, Gram, LayerStatistics, Statistic, require

__all__ = ["LayerResult", "code_and_decompose", "code_layer", "layer_view"]

_RIDGE = 0.02  # of the pull towards the float weight, relative to the mean energy of an input


@dataclass(frozen=True)
class LayerResult:
    """One layer, coded.

    Attributes:
        code: codes, codebook and adapter.
        bias: the new bias ``(G * R,)`` float32, or None for a layer without one.
        relative_output_error: ``mean |y - y_q|^2 / mean |y|^2`` on the calibration inputs.
        energies: error along each adapter direction, before the adapter, descending, where the layer was coded; empty
            where no direction was looked for.
        unseen: no calibration input reached it; its error is then that of its weight.
    """

    code: CodedLayerState
    bias: Tensor | None
    relative_output_error: float
    energies: Tensor
    unseen: bool = False


def layer_view(plan: LayerPlan, has_bias: bool, statistics: LayerStatistics) -> LayerStatistics:
    """The statistics as the plan wants them seen: centred where the bias will take up the mean error."""
    if not (plan.bias_correction and has_bias):
        return statistics
    centred: dict[type[Statistic], Statistic] = {Gram: require(statistics, Gram, "bias correction").centred()}
    moments = statistics.get(CrossMoments)
    if isinstance(moments, CrossMoments):
        centred[CrossMoments] = moments.centred()
    return {**statistics, **centred}


def code_layer(
    weight: Tensor, bias: Tensor | None, plan: LayerPlan, statistics: LayerStatistics, spectrum: bool = True
) -> LayerResult:
    """Codes one layer.

    Args:
        weight: ``(G, R, C)`` float32.
        bias: ``(G * R,)`` float32 or None.
        plan: what to do; its codec is not None.
        statistics: of the layer, holding at least a :class:`~corank.statistics.Gram`.
        spectrum: whether the energies are wanted where the plan has no rank that needs them.

    Returns:
        The round of least output error, if the plan asks for several; where the weight is, wherever it was coded.
    """
    return code_and_decompose(weight, bias, plan, statistics, spectrum)[0]


def code_and_decompose(
    weight: Tensor, bias: Tensor | None, plan: LayerPlan, statistics: LayerStatistics, spectrum: bool = True
) -> tuple[LayerResult, LowRank | None]:
    """As :func:`code_layer`, with the full-rank adapter of what rounding lost; None where nobody asked for it."""
    home, place = weight.device, coding_device(weight, plan)
    if place == home:
        return _coded(weight, bias, plan, statistics, spectrum)
    offset = None if bias is None else bias.to(place)
    result, found = _coded(weight.to(place), offset, plan, statistics_at(statistics, place), spectrum)
    new_bias = None if result.bias is None else result.bias.to(home)
    directions = None if found is None else directions_at(found, home)
    return replace(result, code=code_at(result.code, home), bias=new_bias), directions


def _coded(
    weight: Tensor, bias: Tensor | None, plan: LayerPlan, statistics: LayerStatistics, spectrum: bool
) -> tuple[LayerResult, LowRank | None]:
    """The same where weight and statistics are."""
    moments = statistics.get(CrossMoments)
    shape = (weight.shape[0], weight.shape[1], weight.shape[2])
    wanted = weight
    if isinstance(moments, CrossMoments):
        # The layer will be fed by coded layers: what is rounded is the weight that best gives the float outputs there.
        wanted = moments.corrected(weight, plan.bias_correction and bias is not None, _RIDGE)
        view = layer_view(plan, bias is not None, {**statistics, Gram: moments.gram})
    else:
        view = layer_view(plan, bias is not None, statistics)
    gram = require(view, Gram, "code_layer")
    rank = min(plan.rank, full_rank(shape))
    best: tuple[float, CodedLayerState, Tensor, LowRank | None] | None = None
    adapter: CodedLowRank | None = None
    for turn in range(plan.rounds if rank else 1):
        # In turn: codes of what the adapter leaves, then the adapter of what the codes leave.
        product = 0 if adapter is None else adapter.product().reshape(shape)
        given = (weight if plan.rounder.corrects_input_error else wanted) - product
        codebook, allowed = _fitted(plan, (wanted - product).flatten(0, 1), gram.matrix)
        codes = plan.rounder.drawing_for(f"round {turn}")(given.flatten(0, 1), allowed, view)
        if plan.refits:
            codebook = refit_scales(codebook, codes, (wanted - product).flatten(0, 1), gram.matrix)
        coded = CodedWeight(codes, codebook)
        values = coded.decode().reshape(shape)
        directions = decompose(wanted - values, plan.fit, view) if rank or spectrum else None
        adapter = code_factors(directions.truncate(rank), plan.adapter_bits) if rank and directions else None
        whole = values if adapter is None else values + adapter.product().reshape(shape)
        error = float(_energy(wanted - whole, gram.matrix))
        if best is None or error < best[0]:
            code = CodedLayerState(_codec(plan).with_measured_size(codebook), coded, adapter, plan.adapter_bits)
            best = (error, code, whole, directions)
    assert best is not None
    _, code, composed, directions = best
    layer = _FloatLayer(weight, bias)
    new_bias = _corrected_bias(layer, composed, statistics) if plan.bias_correction else bias
    if new_bias is not None:
        new_bias = new_bias.to(torch.float16).float()  # as it is stored
    inputs = require(statistics, Gram, "code_layer")
    relative = _relative_error(layer, _FloatLayer(composed, new_bias), inputs)
    energies = weight.new_zeros(0) if directions is None else directions.energies
    return LayerResult(code, new_bias, relative, energies, unseen=not inputs.count), directions


@dataclass(frozen=True)
class _FloatLayer:
    """Weight ``(G, R, C)`` and bias ``(G * R,)``."""

    weight: Tensor
    bias: Tensor | None


def _codec(plan: LayerPlan) -> Codec:
    if plan.codec is None:
        raise ValueError("a layer without a codec stays float and is not coded")
    return plan.codec


def _fitted(plan: LayerPlan, weight: Tensor, gram: Tensor) -> tuple[Codebook, Codebook]:
    """The codebook of a weight ``(G * R, C)``, and what of it each weight may take: pruned ones zero alone."""
    mask = smallest(weight, plan.sparsity) if plan.sparsity else None

    def allowed(codebook: Codebook) -> Codebook:
        return codebook if mask is None else Pruned.of(codebook, mask)

    codebook = _codec(plan).fit(weight if mask is None else weight.masked_fill(mask, 0.0), gram)
    if plan.refits:
        codebook, _ = alternate(codebook, weight, gram, plan.refits, allowed)
    return codebook, allowed(codebook)


def _energy(matrix: Tensor, second_moment: Tensor) -> Tensor:
    """``sum_g tr(M Sigma M^T)``."""
    return ((matrix @ second_moment) * matrix).sum()


def _corrected_bias(layer: _FloatLayer, composed: Tensor, statistics: LayerStatistics) -> Tensor | None:
    """The bias that gives the float outputs' mean from the composed weight and the inputs it will see."""
    if layer.bias is None:
        return None
    moments = statistics.get(CrossMoments)
    gram = require(statistics, Gram, "code_layer")
    seen, expected = (gram.mean, gram.mean)
    if isinstance(moments, CrossMoments):
        seen, expected = moments.gram.mean, moments.float_mean
    return layer.bias + (layer.weight @ expected[:, :, None] - composed @ seen[:, :, None]).flatten()


def _relative_error(layer: _FloatLayer, coded: _FloatLayer, gram: Gram) -> float:
    """Energy of the outputs' error over that of the outputs, both with their biases, on the float network's inputs."""

    def energy(weight: Tensor, bias: Tensor | None) -> Tensor:
        mean = (weight @ gram.mean[:, :, None]).flatten()
        offset = torch.zeros_like(mean) if bias is None else bias
        return _energy(weight, gram.matrix) + (2 * mean * offset + offset.square()).sum()

    shift = None if layer.bias is None or coded.bias is None else layer.bias - coded.bias
    error = energy(layer.weight - coded.weight, shift)
    return float(error.clamp(min=0) / energy(layer.weight, layer.bias).clamp(min=1e-30))
