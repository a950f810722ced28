"""Layers coded one after the other, each against what the layers before it, already coded, feed it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from corank.calibration import (
    Context,
    LayerwisePasses,
    NetworksInputs,
    StreamedStatistics,
    TensorMark,
    collect,
    layer_rows,
    may_share,
    position_limit,
)
from corank.coding.kept import kept_or_coded
from corank.coding.layer import LayerResult, code_layer
from corank.coding.layer_inputs import fitted_before, fitted_here
from corank.coding.waiting import waiting_samples
from corank.layers import InputRounder
from corank.padding import masks_of
from corank.plan import LayerPlan, Plan
from corank.processes import shard
from corank.statistics import Gram, LayerStatistics, require

__all__ = ["code_in_sequence"]


def code_in_sequence(plan: Plan, statistics: Mapping[str, LayerStatistics], context: Context) -> dict[str, LayerResult]:
    """Codes the context's model layer after layer; its float layers hold the coded weights afterwards.

    Two networks run side by side, the float one and the one coded so far, all batches standing before the same layer:
    every batch runs once through each, however many layers there are.
    """
    if isinstance(statistics, StreamedStatistics):
        statistics.forget()
    coded, prepared = plan.coded(), context.prepared
    waited = {name: prepared.targets[name] for name in coded if name not in prepared.first}
    floating = copy.deepcopy(prepared.model)
    modules = dict(floating.named_modules(remove_duplicate=False))
    twins = {name: modules[name] for name in coded}
    given = context.ideal or context.samples
    apart = replace(context, prepared=replace(prepared, model=floating, targets=twins), samples=given)
    stops = {name: twins[name] for name in waited}
    context = replace(context, samples=waiting_samples(floating, stops, context))
    batches = [batch for _, batch in shard(context.samples.batches)]
    ideals = [batch for _, batch in shard(given.batches[: len(context.samples.batches)])]
    results: dict[str, LayerResult] = {}
    with (
        LayerwisePasses(floating, stops, ideals) as ideal,
        LayerwisePasses(prepared.model, waited, batches) as real,
    ):
        sequence = _Sequence(plan, statistics, context, apart, (ideal, real))
        for number, name in enumerate(sorted(coded, key=lambda one: one in waited)):
            results[name] = kept_or_coded(context, number, name, coded[name], sequence.code)
            sequence.go_on(name, results[name])
            context.progress("coding", number + 1, len(coded))
    return {name: results[name] for name in coded}


class _Sequence:
    """A float network and the one coded so far, all batches before the same layer.

    Args:
        plan, statistics: of the run.
        context: with the network coded so far, and the samples that wait.
        apart: with the float network, and all samples.
        passes: of the samples that wait, through the float network and through the one coded so far.
    """

    def __init__(
        self,
        plan: Plan,
        statistics: Mapping[str, LayerStatistics],
        context: Context,
        apart: Context,
        passes: tuple[LayerwisePasses, LayerwisePasses],
    ) -> None:
        self._plan, self._statistics, self._context, self._apart = plan, statistics, context, apart
        self._ideal, self._real = passes
        self._before: _Seen | None = None

    def code(self, name: str, layer: LayerPlan) -> LayerResult:
        """The layer that all batches stand before, coded."""
        prepared = self._context.prepared
        if name in prepared.first:
            return self._code_first(name, layer)
        inputs = fitted_here(self._real, name, layer, self._context) if layer.inputs else None
        if layer.inputs and inputs is None:  # the coded network's router sends nothing to it, the float one's does
            inputs = fitted_before(self._apart, {name: layer})[name]
        moments = self._moments(name, layer.sequential, inputs)
        if not require(moments, Gram, "coding").count and len(self._context.samples) < len(self._apart.samples):
            apart = self._apart  # some of those that do not wait may reach it
            moments = collect(apart.model, {name: apart.prepared.targets[name]}, apart.samples, apart.seed)[name]
        seen = {**self._further(name), **moments}
        weight, bias = prepared.weight(name), prepared.bias(name)
        result = code_layer(weight, bias, layer.on_layer(name), seen, self._plan.has_adapters)
        return replace(result, code=replace(result.code, inputs=inputs))

    def _code_first(self, name: str, layer: LayerPlan) -> LayerResult:
        """A layer that others read before the passes come by it, coded on what it sees in the float network."""
        apart, prepared = self._apart, self._apart.prepared
        inputs = fitted_before(apart, {name: layer})[name] if layer.inputs else None
        if name in prepared.blind:
            groups, _, columns = prepared.geometry(name).matrix_shape
            moments: LayerStatistics = {Gram: Gram(groups, columns, apart.device).unknown()}
        else:
            moments = collect(apart.model, {name: prepared.targets[name]}, apart.samples, apart.seed)[name]
        weight, bias = prepared.weight(name), prepared.bias(name)
        seen = {**self._further(name), **moments}
        result = code_layer(weight, bias, layer.on_layer(name), seen, self._plan.has_adapters)
        return replace(result, code=replace(result.code, inputs=inputs))

    def go_on(self, name: str, result: LayerResult) -> None:
        """Gives the layer its coded weight, with which the passes that wait before it go on."""
        if result.code.inputs is not None and name not in self._context.prepared.first:
            self._real.change(name, result.code.inputs)
        layer = self._context.prepared.targets[name]
        composed = self._context.prepared.geometry(name).from_matrix(result.code.compose())
        with torch.no_grad():
            layer.get_parameter("weight").copy_(composed)
            if result.bias is not None:
                layer.get_parameter("bias").copy_(result.bias)

    def _further(self, name: str) -> LayerStatistics:
        """What is known of a layer beside the moments of its inputs, which need not be collected for it."""
        known = self._statistics
        return known.further(name) if isinstance(known, StreamedStatistics) else known.get(name, {})

    def _moments(self, name: str, crossed: bool, rounded: InputRounder | None) -> LayerStatistics:
        """Moments of the layer's inputs in the float network and, if ``crossed``, of the coded network's beside them,
        rounded; the layer's before it, where both read the same."""
        context, geometry = self._context, self._context.prepared.geometry(name)
        if name in context.prepared.repeated:  # passes wait at the first call of all that there are
            self._before = None
            return collect(context.model, {name: context.prepared.targets[name]}, context.samples, context.seed)[name]
        may = rounded is None and may_share(context.prepared.targets[name])
        if may and self._before is not None and self._before.crossed == crossed and self._read_before(name):
            return self._before.moments
        self._before = None  # frees what is held before the same is summed up anew
        seen, marks = NetworksInputs(geometry, crossed, context.device), list[_Marks]()
        for place, (number, batch) in enumerate(shard(context.samples.batches)):
            inputs_of_both = self._inputs(place, name)
            marks.append([None if inputs is None else TensorMark(inputs) for inputs in inputs_of_both])
            masks, rows = masks_of(batch), []
            for inputs, change in zip(inputs_of_both, (None, rounded), strict=True):  # the same positions of both
                generator = torch.Generator().manual_seed(context.seed + number)
                limit = 0 if inputs is None else position_limit(geometry, len(context.samples), inputs.shape[0])
                given = inputs if inputs is None or change is None else change(inputs)
                rows.append(None if given is None else layer_rows(geometry, given, limit, generator, masks))
            seen.update(*rows)
        found = seen.statistics(name)
        self._before = _Seen(marks, crossed, found) if may else None
        return found

    def _read_before(self, name: str) -> bool:
        """Whether each batch's inputs, in both networks, are those that the layer before has read."""
        assert self._before is not None
        for place, marks in enumerate(self._before.marks):
            for mark, inputs in zip(marks, self._inputs(place, name), strict=True):
                if mark is None or inputs is None or not mark.is_of(inputs):
                    return False
        return True

    def _inputs(self, place: int, name: str) -> tuple[Tensor | None, Tensor | None]:
        """What the layer is called with on a batch, in the float network and in the one coded so far."""
        for stream in (self._ideal, self._real):  # the next batch runs on while this one is summed up
            for ahead in (place, place + 1):
                if ahead < len(shard(self._context.samples.batches)):
                    stream.begin(ahead, name)
        return self._ideal.inputs(place, name), self._real.inputs(place, name)


_Marks = list[TensorMark | None]  # of one batch: of the float network's inputs, and of the coded one's


@dataclass(frozen=True)
class _Seen:
    """Which tensors a layer read, batch by batch, and what was summed up of them."""

    marks: list[_Marks]
    crossed: bool
    moments: LayerStatistics
