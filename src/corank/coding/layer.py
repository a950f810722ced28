"""Carries one layer's plan out: codec, rounder, residual, adapter, bias."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from corank.adapters import CodedLowRank, code_factors, decompose, full_rank
from corank.codecs import Codebook, Codec
from corank.coded_weight import CodedWeight
from corank.coding.place import code_at, coding_device, statistics_at
from corank.layers import CodedLayer, CodedLayerState, coded_class
from corank.matrix import Geometry
from corank.plan import LayerPlan
from corank.rounding.pruned import Pruned, smallest
from corank.rounding.refit import alternate, refit_scales
from corank.statistics import CrossMoments, Gram, LayerStatistics, Statistic, require

__all__ = ["LayerResult", "code_layer", "coded_module", "layer_view", "matrices"]

_RIDGE = 0.02  # of the pull towards the float weight, relative to the mean energy of an input


@dataclass(frozen=True)
class LayerResult:
    """One layer, coded.

    Attributes:
        code: codes, codebook and adapter.
        bias: the new bias ``(G * R,)`` float32, or None for a layer without one.
        relative_output_error: ``mean |y - y_q|^2 / mean |y|^2`` on the calibration inputs.
        energies: error along each adapter direction, before the adapter, descending; where the layer was coded.
    """

    code: CodedLayerState
    bias: Tensor | None
    relative_output_error: float
    energies: Tensor


def layer_view(plan: LayerPlan, has_bias: bool, statistics: LayerStatistics) -> LayerStatistics:
    """The statistics as the plan wants them seen: centred where the bias will take up the mean error."""
    if not (plan.bias_correction and has_bias):
        return statistics
    centred: dict[type[Statistic], Statistic] = {Gram: require(statistics, Gram, "bias correction").centred()}
    drift = statistics.get(CrossMoments)
    if isinstance(drift, CrossMoments):
        centred[CrossMoments] = drift.centred()
    return {**statistics, **centred}


def code_layer(weight: Tensor, bias: Tensor | None, plan: LayerPlan, statistics: LayerStatistics) -> LayerResult:
    """Codes one layer.

    Args:
        weight: ``(G, R, C)`` float32.
        bias: ``(G * R,)`` float32 or None.
        plan: what to do; its codec is not None.
        statistics: of the layer, holding at least a :class:`~corank.statistics.Gram`.

    Returns:
        The round of least output error, if the plan asks for several; where the weight is, wherever it was coded.
    """
    home, place = weight.device, coding_device(weight, plan)
    if place == home:
        return _coded(weight, bias, plan, statistics)
    offset = None if bias is None else bias.to(place)
    result = _coded(weight.to(place), offset, plan, statistics_at(statistics, place))
    new_bias = None if result.bias is None else result.bias.to(home)
    return replace(result, code=code_at(result.code, home), bias=new_bias)


def _coded(weight: Tensor, bias: Tensor | None, plan: LayerPlan, statistics: LayerStatistics) -> LayerResult:
    """As :func:`code_layer`, where weight and statistics are."""
    drift = statistics.get(CrossMoments)
    shape = (weight.shape[0], weight.shape[1], weight.shape[2])
    wanted = weight
    if isinstance(drift, CrossMoments):
        wanted = drift.corrected(weight, plan.bias_correction and bias is not None, _RIDGE)
        view = layer_view(plan, bias is not None, {**statistics, Gram: drift.gram})
    else:
        view = layer_view(plan, bias is not None, statistics)
    gram = require(view, Gram, "code_layer")
    rank = min(plan.rank, full_rank(shape))
    best: tuple[float, CodedWeight, CodedLowRank | None, Tensor] | None = None
    adapter: CodedLowRank | None = None
    for _ in range(plan.rounds if rank else 1):
        product = 0 if adapter is None else adapter.product().reshape(shape)
        given = (weight if plan.rounder.corrects_input_error else wanted) - product
        codebook, allowed = _fitted(plan, (wanted - product).flatten(0, 1), gram.matrix)
        codes = plan.rounder(given.flatten(0, 1), allowed, view)
        if plan.refits:
            codebook = refit_scales(codebook, codes, (wanted - product).flatten(0, 1), gram.matrix)
        coded = CodedWeight(codes, codebook)
        directions = decompose(wanted - coded.decode().reshape(shape), plan.fit, view)
        adapter = code_factors(directions.truncate(rank), plan.adapter_bits) if rank else None
        whole = CodedLayerState(_codec(plan), coded, adapter, plan.adapter_bits).compose().reshape(shape)
        error = float(_energy(wanted - whole, gram.matrix))
        if best is None or error < best[0]:
            best = (error, coded, adapter, directions.energies)
    assert best is not None
    _, coded, adapter, energies = best
    code = CodedLayerState(_codec(plan).with_measured_size(coded.codebook), coded, adapter, plan.adapter_bits)
    return _finish(code, weight, bias, plan, statistics, energies)


def matrices(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight ``(G, R, C)`` and bias ``(G * R,)`` of a float layer, detached, float32."""
    weight = Geometry.of(layer).to_matrix(layer._parameters["weight"].detach().float())  # pyright: ignore
    bias = layer._parameters.get("bias")
    return weight, None if bias is None else bias.detach().float()


def coded_module(layer: nn.Module, result: LayerResult) -> CodedLayer:
    """The coded counterpart of ``layer`` holding ``result``."""
    adapter, inputs = result.code.adapter, result.code.inputs
    rank = adapter.rank if adapter else 0
    module = coded_class(layer, seen_alike=True)(
        layer,
        result.code.codec,
        rank,
        result.code.adapter_bits,
        result.bias is not None,
        inputs.bits if inputs else None,
    )
    module.fill(result.code, result.bias)
    return module


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


def _finish(
    code: CodedLayerState,
    weight: Tensor,
    bias: Tensor | None,
    plan: LayerPlan,
    statistics: LayerStatistics,
    energies: Tensor,
) -> LayerResult:
    """Corrects the bias and measures the error on the float network's inputs."""
    gram, drift = require(statistics, Gram, "code_layer"), statistics.get(CrossMoments)
    composed = code.compose().reshape(weight.shape)
    new_bias = bias
    if bias is not None:
        if plan.bias_correction:
            seen, expected = (
                (drift.gram.mean, drift.float_mean) if isinstance(drift, CrossMoments) else (gram.mean, gram.mean)
            )
            new_bias = bias + (weight @ expected[:, :, None] - composed @ seen[:, :, None]).flatten()
        assert new_bias is not None
        new_bias = new_bias.to(torch.float16).float()  # as it is stored
    lost = weight - composed
    mean_error = (lost @ gram.mean[:, :, None]).flatten()
    shift = torch.zeros_like(mean_error) if bias is None or new_bias is None else bias - new_bias
    error = _energy(lost, gram.matrix) + (2 * mean_error * shift + shift.square()).sum()
    mean_output = (weight @ gram.mean[:, :, None]).flatten()
    offset = torch.zeros_like(mean_output) if bias is None else bias
    output = _energy(weight, gram.matrix) + (2 * mean_output * offset + offset.square()).sum()
    relative = float(error.clamp(min=0) / output.clamp(min=1e-30))
    return LayerResult(code, new_bias, relative, energies)
