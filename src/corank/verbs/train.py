"""The public call that trains: start where ``quantize`` ends, let the weights move, end in the same coded layers."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from corank.autograd import recording
from corank.calibration import Context, run
from corank.calibration.augment import check_augmentation
from corank.calibration.batches import Batches
from corank.coding.layer_inputs import fitted_before
from corank.coding.plan import code_plan
from corank.compiled import uncompiled
from corank.config import check_progress
from corank.devices import device_of
from corank.errors import ConfigError
from corank.layers import Structure, apply_structure, find_structure, prepare
from corank.losses import Loss
from corank.notes import collected_notes
from corank.plan import LayerPlan, Plan
from corank.precision import exact_float32
from corank.presets import PRESETS, Preset
from corank.processes import init_processes
from corank.progress import Progress
from corank.quantization.encode import drafted
from corank.quantization.request import Origin, QuantizeRequest, Width
from corank.quantization.template import LayerOverride, PlanTemplate
from corank.refine import Refinement
from corank.search import UniformRanks
from corank.storage.model_record import ATTRIBUTE, ModelRecord
from corank.training.callbacks import Callback
from corank.training.checks import check_way, for_layer, stored_recipe
from corank.training.errors_of_layers import layer_errors
from corank.training.finish import convert, settle
from corank.training.loop import train_steps
from corank.training.norms import NormAfter, takes_row_scales
from corank.training.objective import Objective
from corank.training.recipe import Recipe
from corank.training.recipes import chosen_recipe
from corank.training.start import LayerStart, anew, begin
from corank.training.state import TrainingState
from corank.training.weights import WeightTraining
from corank.verbs.arguments import check_kinds, check_numbers
from corank.verbs.opening import ContextOptions, open_context, statistics_of, with_checkpoint
from corank.verbs.training_data import calibrated_on, feed_of, read_labelled

__all__ = ["train"]


@uncompiled()
@recording()
@exact_float32()
def train(
    model: nn.Module,
    data: Any,
    recipe: str | Recipe = "stats-2bit",
    *,
    iterations: int | None = None,
    batch_size: int | None = None,
    layers: Mapping[str, LayerOverride] | None = None,
    all_layers: bool = False,
    loss: Loss | None = None,
    callbacks: Sequence[Callback] = (),
    samples: int | None = None,
    parts: int = 0,
    seed: int = 0,
    device: str | torch.device = "auto",
    reference: str | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """A copy of a trained model whose weights train while they are low-bit codes.

    Training starts from the codes, scales and biases that :func:`corank.quantize` gives without it, unless the recipe
    says otherwise, and is distilled from the float network unless the recipe takes labels. The model is watched, never
    traced. Batch norms stay apart while weights train, and are folded at the end, where the codec has a scale a row.

    Args:
        model: the trained float network; it is not changed.
        data: what is trained on, with labels where the recipe's loss reads them: as for :func:`corank.quantize`.
        recipe: a name such as "stats-2bit", "lsq-w4a4" or "binary-relax-1bit" (``corank recipes`` lists them), or a
            :class:`~corank.training.Recipe`.
        iterations: steps; None for the recipe's.
        batch_size: samples a step; None for the recipe's.
        layers: exceptions by name pattern, as for :func:`corank.quantize`.
        all_layers: also give the first and the last layer the recipe's weights.
        loss: of one's own, ``(output, target) -> scalar``: the target is the float network's output, or the labels
            where the recipe's loss is "labels".
        callbacks: of one's own, run after the recipe's; they are not stored.
        samples: calibration samples that the start is coded from and norms are estimated on; None for 1600.
        parts: samples of a step that pass at once; 0 for all of them. Batch norms that adapt see each part alone.
        seed: draws samples, batches and augmentations.
        device: "auto" (CUDA if there is any, else CPU) or a torch device. The result is where ``model`` was.
        reference: what the model was made from, kept in the file for its reader; never executed.
        checkpoint: a folder that keeps what is done; the same call with the same folder goes on from there, to the
            identical result.
        progress: called with (what, done, total).

    Returns:
        A drop-in copy, in evaluation mode, as :func:`corank.quantize` returns it; what was done is at ``.corank_run``.
        A float network, where the recipe's ``weights`` is None.

    Raises:
        ConfigError, ModelError, DataError, TrainingError: the model is then as it was.
    """
    started = time.perf_counter()
    check_kinds(model, layers=layers, device=device)
    check_progress(progress)
    init_processes()
    how = _asked(chosen_recipe(recipe), iterations, batch_size)
    check_augmentation(how.augment)
    check_numbers(samples, how.batch_size, seed)
    whole = ContextOptions(samples, 32, seed, device, True, None, progress)
    with collected_notes() as notes:
        batches = read_labelled(data, how.batch_size, seed)
        batches.check_labels(how.loss)
        known = calibrated_on(data, batches, samples)
        work = _Run.of(model, known, how, _Choices(layers or {}, all_layers, reference), whole)
        context = with_checkpoint(work.context, checkpoint, lambda: _identity(how, work.draft, batches))
        objective = Objective(how.loss, how.temperature, loss, context.samples.are_tokens)
        feed = feed_of(batches, how, objective, replace(context, prepared=work.teacher.prepared), parts)
        state = replace_callbacks(work.begin(context), callbacks)
        history = train_steps(state, work.norms, feed, context)
        settle(state, context)
        results = convert(state, work.norms, context)
    record = _recorded(work, results, history, tuple(notes.texts))
    errors = layer_errors(state.model, context.model, context.samples.first(32), work.kept_norms)
    found = {name: replace(one, relative_output_error=errors.get(name, 0.0)) for name, one in record.layers.items()}
    record = replace(record, layers=found, seconds=time.perf_counter() - started)
    state.model.__dict__[ATTRIBUTE] = record
    return state.model.to(work.dtype).to(device_of(model))


@dataclass(frozen=True)
class _Choices:
    layers: Mapping[str, LayerOverride]
    all_layers: bool
    reference: str | None


@dataclass(frozen=True)
class _Run:
    """What a training needs before its first step.

    Attributes:
        context: of the float network, norms folded, its structure changed as the recipe says: what the start is coded
            from.
        teacher: of the float network as it was given.
        recipe: to carry out.
        draft: the record without results.
        model: that will train: float32, its norms apart.
        norms: that can be folded.
        request: that the start is coded by.
    """

    context: Context
    teacher: Context
    recipe: Recipe
    draft: ModelRecord
    model: nn.Module
    norms: list[NormAfter]
    request: QuantizeRequest
    dtype: torch.dtype

    @classmethod
    def of(cls, model: nn.Module, data: Any, recipe: Recipe, choices: _Choices, options: ContextOptions) -> _Run:
        template = PlanTemplate(_preset(recipe), choices.layers, None, choices.all_layers, _width(recipe))
        nothing = Refinement(iterations=0)
        origin = Origin(choices.reference, "train", None)
        request = QuantizeRequest(template, Width(None, 0.0), UniformRanks(), nothing, origin)
        own = copy.deepcopy(model).float().eval()
        teacher = context = open_context(own, data, options)
        structure: Structure = ()
        if recipe.structure:
            probe = context.samples.first(2)
            structure = find_structure(own, lambda one: run(one, probe, device_of(one)), recipe.structure)
            apply_structure(own, structure)
            context = open_context(own, data, options)
        draft = replace(drafted(request, context), structure=structure, recipe=stored_recipe(recipe))
        own.to(context.device)
        if recipe.start == "scratch":
            anew(own, options.seed)
        modules = dict(own.named_modules(remove_duplicate=False))
        norms = [NormAfter(n, modules[n], modules[layer]) for n, layer in context.prepared.folded_into.items()]
        for norm in norms:
            norm.turn()
        dtype = next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)
        made = cls(context, teacher, recipe, draft, own, norms, request, dtype)
        made.check()
        return made

    def check(self) -> None:
        """Raises ConfigError for layers that cannot train as the recipe says."""
        tried: list[WeightTraining] = []
        for name, plan in self.draft.plan.coded().items():
            assert plan.codec is not None
            with for_layer(name, plan.codec):
                way = self._way(plan)
                if way not in tried:
                    check_way(way, self.context.prepared.weight(name).flatten(0, 1))
                    tried.append(way)

    @property
    def kept_norms(self) -> dict[str, str]:
        """By layer, the norm behind it that is not folded."""
        kept: dict[str, str] = {}
        for norm, layer in self.context.prepared.folded_into.items():
            plan = self.draft.plan.layers.get(layer)
            if plan is None or plan.codec is None or not takes_row_scales(plan.codec):
                kept[layer] = norm
        return kept

    def begin(self, context: Context) -> TrainingState:
        """The state at the start; what the start is coded from is kept in the checkpoint."""
        return begin(self.model, self._starts(context), self.norms, self.recipe, context.seed)

    def _starts(self, context: Context) -> dict[str, LayerStart]:
        plan, recipe = self.draft.plan, self.recipe
        found: dict[str, LayerStart] = {}
        if recipe.start != "codes":
            rounded = {name: one for name, one in plan.coded().items() if one.inputs is not None}
            quantizers = fitted_before(context, rounded)
            for name, one in plan.coded().items():
                found[name] = LayerStart(self._way(one), self._inputs(one), None, None, quantizers.get(name))
            return found
        own, folded = context.within("start"), not self.kept_norms
        if not folded:  # a codec that cannot take part of a norm's gain is fitted to the weight that trains
            prepared = prepare(self.model, lambda one: run(one, context.samples.first(2), context.device), fold=False)
            own = replace(own, prepared=prepared)
        biases = {name: own.prepared.bias(name) for name in plan.coded()}
        biases = {name: None if one is None else one.clone() for name, one in biases.items()}  # coding writes to them
        results = code_plan(plan, statistics_of(own, plan, keep=False), own)
        for name, result in results.items():
            bias = biases[name]
            moved = None if result.bias is None or bias is None else result.bias - bias.to(result.bias.device)
            one, code = plan.layers[name], result.code
            found[name] = LayerStart(
                self._way(one), self._inputs(one), code, moved, code.inputs, mean_size=1.0, folded=folded
            )
        return found

    def _way(self, plan: LayerPlan) -> WeightTraining:
        recipe = self.recipe
        assert plan.codec is not None and recipe.weights is not None
        for way in (recipe.weights, recipe.edge):
            if way is not None and way.stored == plan.codec:
                return way
        return recipe.weights.with_codec(plan.codec)

    def _inputs(self, plan: LayerPlan):
        recipe = self.recipe
        if plan.inputs is None or recipe.inputs is None:
            return None
        if plan.inputs == recipe.inputs.bits or recipe.edge_inputs is None:
            return recipe.inputs
        return recipe.edge_inputs.with_bits(plan.inputs)


def _asked(recipe: Recipe, iterations: int | None, batch_size: int | None) -> Recipe:
    if iterations is not None:
        recipe = replace(recipe, iterations=iterations)
    return recipe if batch_size is None else replace(recipe, batch_size=batch_size)


def _width(recipe: Recipe) -> int | None:
    return None if recipe.inputs is None else recipe.inputs.bits


def _preset(recipe: Recipe) -> Preset:
    """What codes the start: ``quantize``'s own fast way, with the recipe's codecs."""
    if recipe.weights is None or recipe.edge is None:
        raise ConfigError("the recipe trains no weights in a low-bit way")
    fast = PRESETS["fast"].with_codec(recipe.weights.stored)
    edge = replace(fast.edge, codec=recipe.edge.stored)
    return replace(fast, edge=edge, search=UniformRanks(), budget=0.0)


def _identity(recipe: Recipe, draft: ModelRecord, batches: Batches) -> dict[str, Any]:
    return {"recipe": recipe.to_json(), "plan": draft.plan.to_json(), "verb": "train", "batches": batches.identity}


def replace_callbacks(state: TrainingState, own: Sequence[Callback]) -> TrainingState:
    """The state with callbacks of the caller's after the recipe's."""
    if own:
        state.recipe = replace(state.recipe, callbacks=(*state.recipe.callbacks, *own))
    return state


def _recorded(work: _Run, results: Mapping[str, Any], history: tuple[Any, ...], notes: tuple[str, ...]) -> ModelRecord:
    plan = work.draft.plan.with_codecs({name: one.code.codec for name, one in results.items()})
    signs = {name: one.code.inputs.shifts for name, one in results.items() if one.code.inputs is not None}
    shifted = {name: replace(plan.layers[name], input_shifts=shifts) for name, shifts in signs.items()}
    plan = Plan({**plan.layers, **shifted})
    kept = set(work.kept_norms.values())
    return replace(
        work.draft, plan=plan, iterations=work.recipe.iterations, history=history, notes=notes,
        samples=len(work.context.samples), folded=tuple(name for name in work.draft.folded if name not in kept),
    )  # fmt: skip
