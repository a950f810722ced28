"""One coding of a prepared model: its plan drafted, a search in it, every layer coded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from corank.calibration import Context
from corank.checkpoint import Checkpoint
from corank.codecs import CODECS
from corank.coding.layer import LayerResult
from corank.coding.plan import code_plan
from corank.config import from_json, to_json
from corank.errors import ModelError
from corank.layers import PreparedModel, structure_of
from corank.notes import collected_notes
from corank.plan import Plan
from corank.quantization.request import MOST_EXTRA_BITS, FileSize, Given, QuantizeRequest, Width
from corank.quantization.template import check_plan
from corank.quantization.to_size import bits_for_size, budget_for_size, excess_bits, left_in_float
from corank.search import Allocation, AllocationProblem
from corank.search.candidates import candidate_problem
from corank.search.posed import check_budget, extra_bits, holds_an_adapter, problem_of
from corank.statistics import LayerStatistics
from corank.storage.contents import placeholder_layers
from corank.storage.histogram import histogram
from corank.storage.model_record import LayerRecord, ModelRecord

__all__ = ["CodedModel", "drafted", "encode", "redrafted"]


@dataclass(frozen=True)
class CodedModel:
    """A model whose layers are coded, what was done to it, and what the search found."""

    model: nn.Module
    record: ModelRecord
    allocation: Allocation


def drafted(request: QuantizeRequest, context: Context) -> ModelRecord:
    """The record as far as it is known before anything is fitted: a plan without ranks, the layers' shapes."""
    prepared, template = context.prepared, request.template
    plan, bits = _plan(request, context)
    _check_range(prepared, plan)
    layers = {
        name: replace(layer, histogram=histogram(prepared.targets[name].get_parameter("weight")))
        for name, layer in placeholder_layers(prepared, list(plan.coded())).items()
    }
    skipped = left_in_float(prepared, plan)
    named = replace(_named(request, context), search=None)  # until something is searched
    return replace(named, plan=plan, layers=layers, skipped=skipped, bits=bits, activations=template.activations)


def redrafted(draft: ModelRecord, request: QuantizeRequest, context: Context) -> ModelRecord:
    """The draft of another request whose plan codes the same layers: all but plan and width stays."""
    plan, bits = _plan(request, context)
    return replace(draft, plan=plan, bits=bits)


def encode(
    request: QuantizeRequest, draft: ModelRecord, statistics: Mapping[str, LayerStatistics], context: Context
) -> CodedModel:
    """Finds ranks and codecs, then codes the context's model in place.

    Args:
        request: what to reach.
        draft: of that request.
        statistics: of the float network, by layer name.
        context: of the run; its checkpoint keeps the search and every layer.
    """
    with collected_notes() as notes:
        coded = _encoded(request, draft, statistics, context)
    used = notes.numbers.get("samples", len(context.samples))
    return replace(coded, record=replace(coded.record, samples=used, notes=tuple(notes.texts)))


def _encoded(
    request: QuantizeRequest, draft: ModelRecord, statistics: Mapping[str, LayerStatistics], context: Context
) -> CodedModel:
    allocation = Allocation({})
    if not isinstance(request.target, Given):
        draft = replace(draft, search=request.origin.search)
        budget = _budget(request, draft, context)
        draft = replace(draft, budget=round(budget, 6))
        kept = _kept_allocation(context.checkpoint)
        allocation = kept or request.search(_problem(request, draft, budget, statistics, context))
        if kept is None:
            _keep(context.checkpoint, allocation)
    plan = draft.plan.with_codecs(allocation.codecs).with_ranks(allocation.ranks)
    results = code_plan(plan, statistics, context)
    plan = plan.with_codecs({name: result.code.codec for name, result in results.items()})  # with what they measured
    layers = {name: _layer_record(draft.layers[name], result) for name, result in results.items()}
    return CodedModel(context.model, replace(draft, plan=plan, layers=layers), allocation)


def _named(request: QuantizeRequest, context: Context) -> ModelRecord:
    """A record of nothing but the names and numbers that the run's header will have."""
    origin = request.origin
    empty = ModelRecord(Plan({}), {}, context.prepared.folded, seed=context.seed)
    named = replace(empty, model=origin.reference, preset=origin.preset, search=origin.search)
    return replace(named, structure=structure_of(context.model))


def _plan(request: QuantizeRequest, context: Context) -> tuple[Plan, int | None]:
    """The plan without ranks, and the width that it was made for."""
    target, template, prepared = request.target, request.template, context.prepared
    if isinstance(target, Given):
        return check_plan(target.plan, prepared), None
    bits = target.bits if isinstance(target, (Width, FileSize)) else None
    if isinstance(target, FileSize) and bits is None:
        bits = bits_for_size(prepared, template, target.size, _named(request, context))
    bits = template.recipe.codec.bits if bits is None else bits
    return template.plan(prepared, bits), bits


def _budget(request: QuantizeRequest, draft: ModelRecord, context: Context) -> float:
    """Extra bits per weight that adapters (and other codecs) may store."""
    target, prepared = request.target, context.prepared
    if isinstance(target, FileSize):
        left = min(budget_for_size(prepared, draft, target.size), MOST_EXTRA_BITS)
        return left if request.search.chooses_codecs or holds_an_adapter(prepared, draft.plan, left) else 0.0
    given = None if isinstance(target, Given) else target.budget
    if given is not None:
        return given
    usual = request.template.recipe.budget
    return usual if holds_an_adapter(prepared, draft.plan, usual) else 0.0


def _problem(
    request: QuantizeRequest,
    draft: ModelRecord,
    budget: float,
    statistics: Mapping[str, LayerStatistics],
    context: Context,
) -> AllocationProblem:
    """What the search is to solve, measured as far as it looks at it."""
    prepared, search, target = context.prepared, request.search, request.target
    bits = extra_bits(prepared, draft.plan, budget)
    if search.chooses_codecs:
        size = target.size if isinstance(target, FileSize) else None

        def over(found: Allocation) -> int | None:
            return None if size is None else excess_bits(prepared, draft, found, size)

        free = request.template.free(prepared)
        return replace(candidate_problem(draft.plan, free, statistics, context, over), budget_bits=bits)
    check_budget(prepared, draft.plan, budget)
    return problem_of(draft.plan, bits, context, statistics if search.needs_coded_weights and budget > 0 else None)


def _kept_allocation(checkpoint: Checkpoint) -> Allocation | None:
    """What the search found in an earlier run."""
    earlier = checkpoint.load("search")
    if earlier is None:
        return None
    note = earlier[1]
    codecs = {name: from_json(codec, CODECS, "codec") for name, codec in note["codecs"].items()}
    return Allocation(note["ranks"], tuple(note["history"]), note["iterations"], codecs)


def _keep(checkpoint: Checkpoint, found: Allocation) -> None:
    if not checkpoint.keeps:
        return
    codecs = {name: to_json(codec, CODECS) for name, codec in found.codecs.items()}
    note = {"ranks": dict(found.ranks), "history": list(found.history), "iterations": found.iterations}
    tensors = {"ranks": torch.tensor(list(found.ranks.values()))}
    checkpoint.save("search", tensors, {**note, "codecs": codecs})


def _check_range(prepared: PreparedModel, plan: Plan) -> None:
    """Raises ModelError for weights or biases beyond fp16, in which scales and biases are stored."""
    end = torch.finfo(torch.float16).max
    for name in plan.coded():
        for kind, parameter in prepared.targets[name].named_parameters(recurse=False):
            largest = float(parameter.detach().abs().amax())
            if largest > end:
                raise ModelError(
                    f"the {kind} of layer {name!r} has values of up to {largest:.3g}, and scales and biases are stored "
                    f'in fp16, which ends at {end:.0f}; leave it in float: layers={{{name!r}: "float"}}'
                )


def _layer_record(known: LayerRecord, result: LayerResult) -> LayerRecord:
    spectrum = tuple(result.energies[:64].tolist())
    return replace(known, relative_output_error=result.relative_output_error, spectrum=spectrum)
