"""From a base plan and statistics to a problem whose layers may get other codecs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from corank.adapters import bits_per_rank, decompose
from corank.calibration import Samples, run
from corank.codecs import Codec
from corank.coding.layer import LayerResult, code_layer, layer_view, matrices
from corank.layers import PreparedModel
from corank.losses import Loss, distance
from corank.quantization.allocation import problem_of, sensitivity
from corank.quantization.template import PlanTemplate
from corank.quantization.to_size import FRAME_BYTES
from corank.search import Allocation, AllocationProblem, Candidates, RateDistortionCurve, Search
from corank.statistics import LayerStatistics
from corank.storage.contents import predict_bytes
from corank.storage.model_record import ModelRecord

__all__ = ["CodecCandidates", "problem_for"]

_MEASURED_SAMPLES = 256


@dataclass(frozen=True)
class CodecCandidates(Candidates):
    """Codes layers of a prepared model one by one, each on the float model's inputs.

    Attributes:
        prepared: the float copy; not changed.
        draft: the run so far; its plan has ranks zero.
        statistics: by layer name.
        samples, loss, seed, progress: of the problem.
        size: bytes of the file, if that is what was asked for.
    """

    codecs: Mapping[str, Codec]
    shapes: Mapping[str, tuple[int, int, int]]
    free: Collection[str]
    prepared: PreparedModel
    draft: ModelRecord
    statistics: Mapping[str, LayerStatistics]
    samples: Samples
    loss: Loss
    seed: int = 0
    progress: Callable[[str, int, int], None] | None = None
    size: int | None = None

    @classmethod
    def of(
        cls,
        prepared: PreparedModel,
        draft: ModelRecord,
        free: Collection[str],
        statistics: Mapping[str, LayerStatistics],
        samples: Samples,
        loss: Loss,
        seed: int = 0,
        progress: Callable[[str, int, int], None] | None = None,
        size: int | None = None,
    ) -> CodecCandidates:
        """``free``: names of layers that may get another codec; further ones may get an adapter."""
        codecs, shapes = {}, {}
        for name, plan in draft.plan.coded().items():
            shape = prepared.geometry(name).matrix_shape
            if plan.codec is not None and (name in free or plan.may_adapt(shape)):
                codecs[name], shapes[name] = plan.codec, shape
        return cls(codecs, shapes, free, prepared, draft, statistics, samples, loss, seed, progress, size)

    def problem(self, budget: float) -> AllocationProblem:
        """The joint problem; ``budget`` in extra bits per quantized weight over the plan's own codecs."""
        plain = self._problem({}, measures=False)
        return replace(plain, budget_bits=int(budget * plain.weights + 1e-6), alternatives=self)

    def curves(self, name: str, codecs: Sequence[Codec], measured: bool) -> tuple[RateDistortionCurve, ...]:
        weight, bias = matrices(self.prepared.targets[name])
        return tuple(self._curve(name, weight, bias, codec, measured) for codec in codecs)

    def recoded(self, codecs: Mapping[str, Codec], budget_bits: int) -> AllocationProblem:
        return replace(self._problem(codecs, measures=True), budget_bits=budget_bits)

    def over(self, found: Allocation) -> int | None:
        if self.size is None:
            return None
        plan = self.draft.plan.with_codecs(found.codecs).with_ranks(found.ranks)
        digits = 2 * len(plan.layers)  # an error in the header may be longer than was reckoned with
        return 8 * (predict_bytes(self.prepared, replace(self.draft, plan=plan)) + FRAME_BYTES + digits - self.size)

    def _problem(self, codecs: Mapping[str, Codec], measures: bool) -> AllocationProblem:
        plan = self.draft.plan.with_codecs(codecs)
        return problem_of(
            self.prepared, plan, self.statistics, self.samples, 0.0, self.loss, self.seed, self.progress, measures
        )

    def _curve(
        self, name: str, weight: Tensor, bias: Tensor | None, codec: Codec, measured: bool
    ) -> RateDistortionCurve:
        base = self.draft.plan.layers[name].on_layer(name)
        plan = replace(base, codec=codec, rank=0, rounder=base.rounder.comparison_stand_in())
        statistics, (groups, rows, columns) = self.statistics[name], self.shapes[name]
        result = code_layer(weight, bias, plan, statistics)
        lost = weight - result.code.compose().reshape(weight.shape)
        view = layer_view(plan, bias is not None, statistics)
        gains = decompose(lost, plan.fit, view).energies * sensitivity(plan, view)
        total = float(gains.double().sum())
        factor = self._divergence(name, result) / max(total, 1e-30) if measured else 1.0
        return RateDistortionCurve(
            codec,
            codec.size_bits(groups * rows, columns),
            bits_per_rank((groups, rows, columns), plan.adapter_bits),
            total * factor,
            (gains * factor).cpu() if plan.may_adapt((groups, rows, columns)) else torch.zeros(0, dtype=torch.float32),
        )

    @cached_property
    def _measured(self) -> tuple[nn.Module, list[tuple[Any, Any]]]:
        """A copy of the model, and batches with the float model's outputs."""
        model = copy.deepcopy(self.prepared.model)
        samples = self.samples.take(_MEASURED_SAMPLES).rebatched(64)
        device = next(model.parameters()).device
        with torch.no_grad():
            return model, [(batch, run(model, batch, device)) for batch in samples.batches]

    def _divergence(self, name: str, result: LayerResult) -> float:
        """Mean loss when this layer alone is coded."""
        model, batches = self._measured
        layer = model.get_submodule(name)
        given = {"weight": self.prepared.geometry(name).from_matrix(result.code.compose()), "bias": result.bias}
        parameters = {key: layer.get_parameter(key) for key, value in given.items() if value is not None}
        kept = {key: parameter.detach().clone() for key, parameter in parameters.items()}
        with torch.no_grad():
            for key, parameter in parameters.items():
                parameter.copy_(given[key])
            device = next(model.parameters()).device
            total = samples = 0.0
            for batch, reference in batches:
                count = len(tree_leaves(batch)[0])  # the last batch may be smaller
                total += count * float(distance(self.loss, run(model, batch, device), reference, batch))
                samples += count
            for key, parameter in parameters.items():
                parameter.copy_(kept[key])
        return total / samples


def problem_for(
    search: Search,
    base: PlanTemplate,
    prepared: PreparedModel,
    draft: ModelRecord,
    statistics: Mapping[str, LayerStatistics],
    samples: Samples,
    budget: float,
    loss: Loss,
    seed: int,
    progress: Callable[[str, int, int], None] | None = None,
    size: int | None = None,
) -> AllocationProblem:
    """The problem that ``search`` is to solve, measured as far as it looks at it.

    Raises:
        BudgetError: for a budget above zero that is below the cheapest adapter, where nothing else could take it.
    """
    if search.chooses_codecs:
        free = base.free(prepared)
        known = CodecCandidates.of(prepared, draft, free, statistics, samples, loss, seed, progress, size)
        return known.problem(budget)
    measures = search.needs_coded_weights and budget > 0
    return problem_of(prepared, draft.plan, statistics, samples, budget, loss, seed, progress, measures)
