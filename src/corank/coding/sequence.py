"""Layers coded one after the other, each against what the layers before it, already coded, feed it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch

from corank.calibration import Context, LayerwisePasses, StreamedStatistics, position_limit
from corank.coding.kept import kept_or_coded
from corank.coding.layer import LayerResult, code_layer
from corank.coding.layer_inputs import fitted_here
from corank.coding.waiting import waiting_samples
from corank.errors import ModelError
from corank.layers import InputQuantizer
from corank.plan import LayerPlan, Plan
from corank.processes import shard
from corank.statistics import CrossMoments, Gram, LayerStatistics, Statistic

__all__ = ["code_in_sequence"]

_EVERY = 4  # rows of the float network, of which one is summed where only the reported error rests on them


def code_in_sequence(plan: Plan, statistics: Mapping[str, LayerStatistics], context: Context) -> dict[str, LayerResult]:
    """Codes the context's model layer after layer; its float layers hold the coded weights afterwards.

    Two networks run side by side, the float one and the one coded so far, all batches standing before the same layer:
    every batch runs once through each, however many layers there are.
    """
    if isinstance(statistics, StreamedStatistics):
        statistics.forget()
    coded, prepared = plan.coded(), context.prepared
    floating = copy.deepcopy(prepared.model)
    modules = dict(floating.named_modules(remove_duplicate=False))
    twins = {name: modules[name] for name in coded}
    context = replace(context, samples=waiting_samples(floating, twins, context))
    batches = [batch for _, batch in shard(context.samples.batches)]
    results: dict[str, LayerResult] = {}
    with (
        LayerwisePasses(floating, twins, batches) as ideal,
        LayerwisePasses(prepared.model, {name: prepared.targets[name] for name in coded}, batches) as real,
    ):
        sequence = _Sequence(plan, statistics, context, ideal, real)
        for number, (name, layer) in enumerate(coded.items()):
            results[name] = kept_or_coded(context, number, name, layer, sequence.code)
            sequence.go_on(name, results[name])
            context.progress("coding", number + 1, len(coded))
    return results


class _Sequence:
    """A float network and the one coded so far, all batches before the same layer."""

    def __init__(
        self,
        plan: Plan,
        statistics: Mapping[str, LayerStatistics],
        context: Context,
        ideal: LayerwisePasses,
        real: LayerwisePasses,
    ) -> None:
        self._plan, self._statistics, self._context, self._ideal, self._real = plan, statistics, context, ideal, real

    def code(self, name: str, layer: LayerPlan) -> LayerResult:
        """The layer that all batches stand before, coded."""
        prepared = self._context.prepared
        inputs = fitted_here(self._real, name, layer, self._context) if layer.inputs else None
        seen = {**self._further(name), **self._moments(name, layer.sequential, inputs)}
        weight, bias = prepared.weight(name), prepared.bias(name)
        result = code_layer(weight, bias, layer.on_layer(name), seen, self._plan.has_adapters)
        return replace(result, code=replace(result.code, inputs=inputs))

    def go_on(self, name: str, result: LayerResult) -> None:
        """Gives the layer its coded weight, with which the passes that wait before it go on."""
        if result.code.inputs is not None:
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

    def _moments(self, name: str, crossed: bool, rounded: InputQuantizer | None) -> dict[type[Statistic], Statistic]:
        """Moments of the layer's inputs in the float network and, if ``crossed``, of the coded network's beside them,
        rounded."""
        context, geometry = self._context, self._context.prepared.geometry(name)
        groups, _, columns = geometry.matrix_shape
        gram, moments = Gram(groups, columns, context.device), CrossMoments(groups, columns, context.device)
        mine = shard(context.samples.batches)
        for place, (number, _) in enumerate(mine):
            for stream in (self._ideal, self._real):  # the next batch runs on while this one is summed up
                for ahead in (place, place + 1):
                    if ahead < len(mine):
                        stream.begin(ahead, name)
            expected, given = self._ideal.inputs(place, name), self._real.inputs(place, name)
            if expected is None or given is None:
                continue
            given = given if rounded is None else rounded(given)
            limit = position_limit(geometry, len(context.samples), expected.shape[0])
            pair = [  # the same positions of both
                geometry.patches(inputs, limit, torch.Generator().manual_seed(context.seed + number))
                for inputs in (expected, given)
            ]
            gram.update(pair[0][:, :: _EVERY if crossed else 1], geometry.output_positions(expected))
            if crossed:
                moments.update_pair(pair[0], pair[1], geometry.output_positions(given))
        gram.reduce()
        moments.reduce()
        if not bool(torch.isfinite(gram.mean).all()):
            raise ModelError(f"the inputs of layer {name!r} are NaN or infinite on the calibration data")
        return {Gram: gram, CrossMoments: moments} if crossed else {Gram: gram}
