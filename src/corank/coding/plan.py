"""Carries a plan out: every layer by itself, or each against what the layers before it, already coded, feed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from corank.calibration import Context
from corank.coding.install import install
from corank.coding.kept import kept_or_coded
from corank.coding.layer import LayerResult, code_layer
from corank.coding.layer_inputs import fitted_before
from corank.coding.sequence import code_in_sequence
from corank.errors import ModelError
from corank.plan import LayerPlan, Plan
from corank.statistics import LayerStatistics

__all__ = ["code_plan"]

_UNSEEN = (
    "no sample reaches it, so it is rounded without data, each weight to the nearest value, and its inputs stay float; "
    "samples of every kind that the network will meet would tell more"
)


def code_plan(plan: Plan, statistics: Mapping[str, LayerStatistics], context: Context) -> dict[str, LayerResult]:
    """Codes every planned layer of the context's model and puts the coded layers in place.

    Args:
        plan: layer name to what to do; layers it does not name stay float.
        statistics: by layer name; sequential coding collects the moments of the inputs itself.
        context: its model is changed; its checkpoint keeps each layer as it is coded, and layers found in it are not
            coded again.

    Raises:
        ModelError: for a layer that the model does not have.
    """
    coded = plan.coded()
    unknown = sorted(set(coded) - set(context.prepared.targets))
    if unknown:
        raise ModelError(f"the plan names {unknown[0]!r}, which is not a layer that can be coded")
    if any(layer.sequential for layer in coded.values()):
        results = code_in_sequence(plan, statistics, context)
    else:
        results = _code_each(plan, statistics, context)
    install(context.prepared, results)
    return results


def _code_each(plan: Plan, statistics: Mapping[str, LayerStatistics], context: Context) -> dict[str, LayerResult]:
    """Each layer by itself, on the float network's inputs; the model stays float, so that it can still be looked at."""
    coded, prepared = plan.coded(), context.prepared
    quantizers = fitted_before(context, {name: layer for name, layer in coded.items() if layer.inputs is not None})

    def code(name: str, layer: LayerPlan) -> LayerResult:
        weight, bias = prepared.weight(name), prepared.bias(name)
        result = code_layer(weight, bias, layer.on_layer(name), statistics[name], plan.has_adapters)
        return replace(result, code=replace(result.code, inputs=quantizers.get(name)))

    results = {}
    for number, (name, layer) in enumerate(coded.items()):
        results[name] = kept_or_coded(context, number, name, layer, code)
        context.progress("coding", number + 1, len(coded))
    return results
