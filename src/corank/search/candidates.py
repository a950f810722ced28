"""What the layers of a prepared model would lose with other codecs: each coded by itself, on the float inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from corank.adapters import bits_per_rank, lost_energy
from corank.calibration import Context, mean_loss, outputs_of
from corank.codecs import Codec
from corank.coding.layer import LayerResult, code_layer, layer_view
from corank.layers import module_named
from corank.plan import LayerPlan, Plan
from corank.search.allocation import Allocation
from corank.search.posed import extra_bits, problem_of, sensitivity
from corank.search.problem import AllocationProblem, CodecCandidates, RateDistortionCurve
from corank.statistics import LayerStatistics, OutputGradient

__all__ = ["candidate_problem"]

_MEASURED_SAMPLES, _BATCH = 256, 64
_ESTIMATED_ROWS = 256  # of a group's, by which what all lose is estimated: to a tenth, which is 0.07 bits of a rate


@dataclass(frozen=True)
class _Codings:
    """Codings of single layers.

    Attributes:
        plan: with ranks zero.
        statistics: by layer name.
        context: of the run; its model is not changed.
    """

    plan: Plan
    statistics: Mapping[str, LayerStatistics]
    context: Context

    def lost(self, name: str, codec: Codec) -> float:
        layer, known = self._alone(name, codec), self.statistics[name]
        weight, bias = self.context.prepared.weight(name), self.context.prepared.bias(name)
        rows = slice(None, None, -(-weight.shape[1] // _ESTIMATED_ROWS))
        part = weight[:, rows]
        some = None if bias is None else bias.reshape(weight.shape[:2])[:, rows].flatten()
        result = code_layer(part, some, layer, known, spectrum=False)
        view = layer_view(layer, bias is not None, known)
        residual = part - result.code.compose().reshape(part.shape)
        lost = lost_energy(residual, layer.fit, _of_rows(view, rows)) * sensitivity(layer, view)
        return lost * weight.shape[1] / part.shape[1]

    def curve(self, name: str, codec: Codec, measured: bool) -> RateDistortionCurve:
        layer, prepared = self._alone(name, codec), self.context.prepared
        result = code_layer(prepared.weight(name), prepared.bias(name), layer, self.statistics[name])
        shape, bias = self.context.prepared.geometry(name).matrix_shape, self.context.prepared.bias(name)
        gains = result.energies * sensitivity(layer, layer_view(layer, bias is not None, self.statistics[name]))
        total = float(gains.double().sum())
        factor = self._divergence(name, result) / max(total, 1e-30) if measured else 1.0
        return RateDistortionCurve(
            codec,
            codec.size_bits(shape[0] * shape[1], shape[2]),
            bits_per_rank(shape, layer.adapter_bits),
            total * factor,
            (gains * factor).cpu() if layer.may_adapt(shape) else torch.zeros(0, dtype=torch.float32),
        )

    def recoded(self, codecs: Mapping[str, Codec], budget_bits: int) -> AllocationProblem:
        return problem_of(self.plan.with_codecs(codecs), budget_bits, self.context, self.statistics)

    def _alone(self, name: str, codec: Codec) -> LayerPlan:
        base = self.plan.layers[name].on_layer(name)
        return replace(base, codec=codec, rank=0, rounder=base.rounder.comparison_stand_in())

    @cached_property
    def _measured(self) -> tuple[nn.Module, tuple[Any, ...], list[Any]]:
        """A copy of the model, and batches with the float model's outputs."""
        model = copy.deepcopy(self.context.model)
        batches = self.context.samples.take(_MEASURED_SAMPLES).rebatched(_BATCH).batches
        return model, batches, outputs_of(model, batches)

    def _divergence(self, name: str, result: LayerResult) -> float:
        """Mean loss when this layer alone is coded."""
        model, batches, references = self._measured
        layer = module_named(model, name)
        given = {"weight": self.context.prepared.geometry(name).from_matrix(result.code.compose()), "bias": result.bias}
        with torch.no_grad():
            kept = {key: layer.get_parameter(key).detach().clone() for key, value in given.items() if value is not None}
            _give(layer, {key: given[key] for key in kept})
            found = mean_loss(model, batches, references, self.context.loss)
            _give(layer, kept)
        return found


def _of_rows(statistics: LayerStatistics, rows: slice) -> LayerStatistics:
    """The statistics of a layer that has some of the rows alone."""
    gradient = statistics.get(OutputGradient)
    return {**statistics, OutputGradient: gradient.of(rows)} if isinstance(gradient, OutputGradient) else statistics


def _give(layer: nn.Module, values: Mapping[str, Tensor | None]) -> None:
    for key, value in values.items():
        assert value is not None
        layer.get_parameter(key).copy_(value)


def candidate_problem(
    plan: Plan,
    free: Collection[str],
    statistics: Mapping[str, LayerStatistics],
    context: Context,
    over: Callable[[Allocation], int | None],
) -> AllocationProblem:
    """The problem of finding codecs and ranks together; its budget is of nothing, for the caller to set.

    Args:
        plan: with ranks zero.
        free: names of layers that may get another codec; further ones may get an adapter.
        statistics: by layer name.
        context: of the run.
        over: bits by which a file would be too large; see :class:`CodecCandidates`.
    """
    codecs: dict[str, Codec] = {}
    shapes: dict[str, tuple[int, int, int]] = {}
    for name, layer in plan.coded().items():
        shape = context.prepared.geometry(name).matrix_shape
        adapts = layer.may_adapt(shape) and name not in context.prepared.blind
        if layer.codec is not None and (name in free or adapts):
            codecs[name], shapes[name] = layer.codec, shape
    codings = _Codings(plan, statistics, context)
    known = CodecCandidates(codecs, shapes, free, codings.lost, codings.curve, codings.recoded, over)
    return replace(problem_of(plan, extra_bits(context.prepared, plan, 0.0), context), candidates=known)
