"""Carries a plan out: every layer by itself, or each against what the layers before it, already coded, feed it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from corank.calibration import (
    LayerwisePasses,
    NetworksInputs,
    Samples,
    StreamedStatistics,
    collect,
    layer_rows,
    position_limit,
)
from corank.checkpoint import Checkpoint
from corank.codecs import CODECS
from corank.coding.layer import LayerResult, code_layer, coded_module, matrices
from corank.coding.layer_inputs import fitted_before, fitted_here
from corank.coding.waiting import waiting_samples
from corank.config import from_json, to_json
from corank.errors import ConfigError, ModelError
from corank.layers import InputQuantizer, PreparedModel, coded_class, replace_module
from corank.matrix import Geometry
from corank.notes import collected_notes, note
from corank.padding import masks_of
from corank.plan import LayerPlan, Plan
from corank.processes import shard
from corank.statistics import Gram, LayerStatistics, require

__all__ = ["apply_plan"]

_UNSEEN = (
    "no sample reaches it, so it is rounded without data, each weight to the nearest value, and its inputs stay float; "
    "samples of every kind that the network will meet would tell more"
)


def apply_plan(
    prepared: PreparedModel,
    plan: Plan,
    statistics: Mapping[str, LayerStatistics],
    progress: Callable[[str, int, int], None] | None = None,
    samples: Samples | None = None,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
) -> dict[str, LayerResult]:
    """Codes every planned layer of the prepared copy and puts the coded layers in place.

    Args:
        prepared: its model is changed.
        plan: layer name to what to do; layers it does not name stay float.
        statistics: by layer name; sequential coding collects the moments of the inputs itself.
        progress: called with (what, done, total).
        samples: calibration samples, for layers whose plan is sequential.
        seed: draws the positions of sequential calibration.
        checkpoint: keeps each layer as it is coded; layers found in it are not coded again.

    Raises:
        ModelError: for a layer that the model does not have. ConfigError: for a sequential plan without samples.
    """
    coded = plan.coded()
    unknown = sorted(set(coded) - set(prepared.targets))
    if unknown:
        raise ModelError(f"the plan names {unknown[0]!r}, which is not a layer that can be coded")
    if any(layer.sequential for layer in coded.values()):
        if samples is None:
            raise ConfigError("the plan is sequential: apply_plan(..., samples=...) needs the calibration samples")
        return _apply_in_sequence(prepared, plan, statistics, samples, seed, progress, checkpoint or Checkpoint(None))
    results: dict[str, LayerResult] = {}
    kept = checkpoint or Checkpoint(None)
    rounding = {name: layer for name, layer in coded.items() if layer.inputs is not None}
    if rounding and samples is None:
        raise ConfigError("the plan rounds inputs: apply_plan(..., samples=...) needs the calibration samples")
    rounded = fitted_before(prepared.model, prepared.targets, rounding, samples, seed) if rounding and samples else {}
    for number, (name, layer_plan) in enumerate(coded.items()):
        layer = prepared.targets[name]
        weight, bias = matrices(layer)

        def fresh(name: str = name, plan: LayerPlan = layer_plan, weight: Tensor = weight, bias: Tensor | None = bias):
            return _with_inputs(code_layer(weight, bias, plan.on_layer(name), statistics[name]), rounded.get(name))

        results[name] = _kept_or(fresh, kept, number, name, layer, layer_plan)
        if progress is not None:
            progress("coding", number + 1, len(coded))
    for name, result in results.items():  # only now, so that statistics can still be collected from the float model
        replace_module(prepared.model, prepared.targets[name], coded_module(prepared.targets[name], result))
    return results


def _apply_in_sequence(
    prepared: PreparedModel,
    plan: Plan,
    statistics: Mapping[str, LayerStatistics],
    samples: Samples,
    seed: int,
    progress: Callable[[str, int, int], None] | None,
    checkpoint: Checkpoint,
) -> dict[str, LayerResult]:
    """Each layer is coded against what the layers before it, already coded, feed it."""
    coded, results = plan.coded(), {}
    if isinstance(statistics, StreamedStatistics):
        statistics.forget()
    model, targets = prepared.model, {name: prepared.targets[name] for name in coded}
    floating = copy.deepcopy(model)
    twins = dict(floating.named_modules(remove_duplicate=False))
    every = samples
    samples = waiting_samples(floating, {name: twins[name] for name in targets}, samples, checkpoint)
    batches = [batch for _, batch in shard(samples.batches)]
    with (
        LayerwisePasses(floating, {name: twins[name] for name in targets}, batches) as ideal,
        LayerwisePasses(model, targets, batches) as real,
    ):
        for number, (name, layer_plan) in enumerate(coded.items()):
            layer = targets[name]
            weight, bias = matrices(twins[name])

            def fresh(
                name: str = name, plan: LayerPlan = layer_plan, weight: Tensor = weight, bias: Tensor | None = bias
            ):
                inputs = fitted_here(real, name, targets[name], plan, samples, seed) if plan.inputs else None
                if plan.inputs and inputs is None:  # not reached from here, but in the float network
                    inputs = fitted_before(floating, twins, {name: plan}, every, seed)[name]
                seen = _seen(targets[name], name, ideal, real, samples, seed, plan.sequential, inputs)
                if not require(seen, Gram, "coding in sequence").count and len(samples) < len(every):
                    seen = collect(floating, {name: twins[name]}, every, seed)[name]  # by those that do not wait
                known = {**_further(statistics, name), **seen}
                return _with_inputs(code_layer(weight, bias, plan.on_layer(name), known), inputs)

            result = results[name] = _kept_or(fresh, checkpoint, number, name, layer, layer_plan)
            if result.code.inputs is not None:
                real.change(name, result.code.inputs)
            composed = Geometry.of(layer).from_matrix(result.code.compose())
            with torch.no_grad():  # the passes that wait before this layer go on with its coded weight
                layer._parameters["weight"].copy_(composed)  # pyright: ignore[reportOptionalMemberAccess]
                if result.bias is not None:
                    layer._parameters["bias"].copy_(result.bias)  # pyright: ignore[reportOptionalMemberAccess]
            if progress is not None:
                progress("coding", number + 1, len(coded))
    for name, result in results.items():
        replace_module(model, targets[name], coded_module(targets[name], result))
    return results


def _with_inputs(result: LayerResult, inputs: InputQuantizer | None) -> LayerResult:
    return replace(result, code=replace(result.code, inputs=inputs))


def _further(statistics: Mapping[str, LayerStatistics], name: str) -> LayerStatistics:
    """What is known of a layer beside the moments of its inputs, which need not be collected for it."""
    return statistics.further(name) if isinstance(statistics, StreamedStatistics) else statistics.get(name, {})


def _seen(
    layer: nn.Module,
    name: str,
    ideal: LayerwisePasses,
    real: LayerwisePasses,
    samples: Samples,
    seed: int,
    drifts: bool,
    rounded: InputQuantizer | None,
) -> LayerStatistics:
    """Moments of the layer's inputs in the float network and, if asked, of the coded network's beside them, rounded."""
    geometry, where = Geometry.of(layer), cast(Tensor, layer._parameters["weight"]).device
    seen, mine = NetworksInputs(geometry, drifts, where), shard(samples.batches)
    for place, (number, batch) in enumerate(mine):
        for stream in (ideal, real):  # the next batch runs on while this one is summed up
            for ahead in (place, place + 1):
                if ahead < len(mine):
                    stream.begin(ahead, name)
        expected, given = ideal.inputs(place, name), real.inputs(place, name)
        given = given if given is None or rounded is None else rounded(given)
        masks, rows = masks_of(batch), []
        for inputs in (expected, given):  # the same positions of both
            generator = torch.Generator().manual_seed(seed + number)
            limit = 0 if inputs is None else position_limit(geometry, len(samples), inputs.shape[0])
            rows.append(None if inputs is None else layer_rows(geometry, inputs, limit, generator, masks))
        seen.update(*rows)
    return seen.statistics(name)


def _kept_or(
    fresh: Callable[[], LayerResult],
    checkpoint: Checkpoint,
    number: int,
    name: str,
    layer: nn.Module,
    plan: LayerPlan,
) -> LayerResult:
    """The layer as an earlier run coded it, or coded now and kept."""
    step = f"layer-{number:04d}"
    found = checkpoint.load(step)
    if found is not None:
        for text in found[1]["notes"]:
            note(text)
        return _restored(found[0], found[1], layer, plan)
    try:
        with collected_notes(f"layer {name!r}: ") as said:
            result = fresh()
            if result.unseen:
                note(_UNSEEN)
    except Exception as error:
        error.add_note(f"while coding layer {name!r}")
        raise
    module = coded_module(layer, result)
    tensors = {f"slot.{slot}": cast(Tensor, module._buffers[slot]) for slot in module.slots()}
    tensors["energies"] = result.energies
    if result.bias is not None:
        tensors["bias"] = result.bias
    codec = to_json(result.code.codec, CODECS)
    about = {"rank": module.rank, "codec": codec, "relative_output_error": result.relative_output_error}
    checkpoint.save(step, tensors, {**about, "notes": list(said.texts)})
    return result


def _restored(tensors: dict[str, Tensor], note: dict[str, Any], layer: nn.Module, plan: LayerPlan) -> LayerResult:
    where = cast(Tensor, layer._parameters["weight"]).device
    codec = from_json(note["codec"], CODECS, "codec")
    kind = coded_class(layer, seen_alike=True)
    module = kind(layer, codec, int(note["rank"]), plan.adapter_bits, inputs=plan.inputs)
    for slot in module.slots():
        module._buffers[slot] = tensors[f"slot.{slot}"].to(where)
    bias = tensors["bias"].to(where) if "bias" in tensors else None
    return LayerResult(module.code(), bias, float(note["relative_output_error"]), tensors["energies"].to(where))
