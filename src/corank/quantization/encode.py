"""One coding of a prepared model: its plan drafted, a search in it, every layer coded."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from corank.calibration import Samples
from corank.calibration.collect import Progress
from corank.checkpoint import Checkpoint
from corank.codecs import CODECS
from corank.coding.layer import LayerResult
from corank.coding.plan import apply_plan
from corank.config import from_json, to_json
from corank.errors import ModelError
from corank.layers import PreparedModel
from corank.losses import Loss
from corank.plan import Plan
from corank.quantization.allocation import holds_an_adapter
from corank.quantization.candidates import problem_for
from corank.quantization.template import PlanTemplate, check_plan
from corank.quantization.to_size import MOST_EXTRA_BITS, bits_for_size, budget_for_size, parse_size
from corank.search import Allocation, Search
from corank.statistics import LayerStatistics
from corank.storage.contents import placeholder_layers
from corank.storage.histogram import histogram
from corank.storage.model_record import LayerRecord, ModelRecord

__all__ = ["CodedModel", "Encoder"]


@dataclass(frozen=True)
class CodedModel:
    """A model whose layers are coded, what was done to it, and what the search found."""

    model: nn.Module
    run: ModelRecord
    found: Allocation


@dataclass(frozen=True)
class Encoder:
    """What was asked for, to be done with one base plan or several.

    Attributes:
        prepared: the float copy.
        finder: searches ranks or codecs.
        plan, bits, size, budget: as for :func:`corank.quantize`.
        samples, loss, seed, progress: of calibration and search.
        reference, preset, search: names, for the record.
        statistics: by layer name.
    """

    prepared: PreparedModel
    finder: Search
    plan: Plan | None
    bits: int | None
    size: int | str | None
    budget: float | None
    samples: Samples
    loss: Loss
    seed: int
    progress: Progress | None
    reference: str | None
    preset: str
    search: str
    statistics: Mapping[str, LayerStatistics] = field(default_factory=dict)

    def draft(self, base: PlanTemplate) -> ModelRecord:
        """The run as far as it is known before anything is fitted."""
        bits, prepared = self.bits, self.prepared
        if self.plan is not None:
            checked = check_plan(self.plan, prepared)
        else:
            if bits is None and self.size is not None:
                bits = bits_for_size(prepared, base, parse_size(self.size))
            bits = base.recipe.codec.bits if bits is None else bits
            checked = base(prepared, bits)
        _check_range(prepared, checked)
        skipped = dict(prepared.skipped)
        for name in prepared.targets:
            if name not in checked.layers or checked.layers[name].codec is None:
                skipped[name] = "the plan leaves it in float"
        layers = {
            name: replace(layer, histogram=histogram(prepared.targets[name].get_parameter("weight")))
            for name, layer in placeholder_layers(prepared, list(checked.coded())).items()
        }
        made = ModelRecord(checked, layers, prepared.folded, skipped, bits=bits, activations=base.activations)
        return replace(made, seed=self.seed, model=self.reference, preset=self.preset)

    def __call__(self, base: PlanTemplate, prepared: PreparedModel, kept: Checkpoint) -> CodedModel:
        """Codes ``prepared``, which is the float copy or a copy of it, in place; steps are kept."""
        draft, found = self.draft(base), Allocation({})
        if self.plan is None:
            extra, most = self._spendable(draft, base.recipe.budget)
            draft = replace(draft, budget=round(extra, 6), search=self.search)
            common = (self.statistics, self.samples, extra, self.loss, self.seed, self.progress, most)
            found = _found(kept, lambda: self.finder(problem_for(self.finder, base, self.prepared, draft, *common)))
        final = draft.plan.with_codecs(found.codecs).with_ranks(found.ranks)
        results = apply_plan(prepared, final, self.statistics, self.progress, self.samples, self.seed, kept)
        return CodedModel(prepared.model, _outcome(draft, final, results), found)

    def on_a_copy(self, base: PlanTemplate, kept: Checkpoint, rate: float, number: int) -> CodedModel:
        """The same at another rate, for the attempt of that number; the float copy stays as it is."""
        return self(base.at_rate(rate), copy.deepcopy(self.prepared), kept.within(f"attempt-{number}"))

    def _spendable(self, draft: ModelRecord, usual: float) -> tuple[float, int | None]:
        """Extra bits per weight for adapters, and the bytes that the file may have, if that is what was asked for."""
        if self.size is None:
            if self.budget is not None:
                return self.budget, None
            return usual if holds_an_adapter(self.prepared, draft.plan, usual) else 0.0, None
        size = parse_size(self.size)
        extra = min(budget_for_size(self.prepared, draft, size), MOST_EXTRA_BITS)
        spent = self.finder.chooses_codecs or holds_an_adapter(self.prepared, draft.plan, extra)
        return (extra if spent else 0.0), size


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


def _found(kept: Checkpoint, look: Callable[[], Allocation]) -> Allocation:
    """What the search found, now or in an earlier run."""
    earlier = kept.load("search")
    if earlier is not None:
        note = earlier[1]
        codecs = {name: from_json(codec, CODECS, "codec") for name, codec in note["codecs"].items()}
        return Allocation(note["ranks"], tuple(note["history"]), note["iterations"], codecs)
    found = look()
    codecs = {name: to_json(codec, CODECS) for name, codec in found.codecs.items()}
    note = {"ranks": dict(found.ranks), "history": list(found.history), "iterations": found.iterations}
    note["codecs"] = codecs
    kept.save("search", {"ranks": torch.tensor(list(found.ranks.values()))}, note)
    return found


def _outcome(draft: ModelRecord, plan: Plan, results: Mapping[str, LayerResult]) -> ModelRecord:
    """The run with what came of it, its codecs saying what they measured."""
    plan = plan.with_codecs({name: result.code.codec for name, result in results.items()})
    layers = {name: _layer_run(result, draft.layers[name]) for name, result in results.items()}
    return replace(draft, plan=plan, layers=layers)


def _layer_run(result: LayerResult, known: LayerRecord) -> LayerRecord:
    spectrum = tuple(result.energies[:64].tolist())
    return replace(known, relative_output_error=result.relative_output_error, spectrum=spectrum)
