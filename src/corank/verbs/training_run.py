"""What a training needs before its first step: the float network as teacher, its start, the network that will train."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from corank.calibration import Context, run
from corank.coding.layer import LayerResult
from corank.coding.layer_inputs import fit_operands, fitted_before
from corank.coding.plan import code_plan
from corank.devices import device_of
from corank.errors import ConfigError, ModelError
from corank.layers import RoundedOperand, Structure, apply_structure, as_held, find_structure, prepare
from corank.notes import note
from corank.plan import LayerPlan, Plan
from corank.presets import PRESETS, Preset
from corank.processes import alone
from corank.quantization.encode import drafted
from corank.quantization.request import Origin, QuantizeRequest, Width
from corank.quantization.template import LayerOverride, PlanTemplate
from corank.refine import Refinement
from corank.search import UniformRanks
from corank.storage.model_record import ModelRecord
from corank.training.checks import check_way, for_layer, stored_recipe
from corank.training.inputs import InputTraining
from corank.training.norms import NormAfter, takes_row_scales
from corank.training.recipe import Recipe
from corank.training.start import LayerStart, anew, begin
from corank.training.state import TrainingState
from corank.training.weights import WeightTraining
from corank.verbs.opening import ContextOptions, open_context, statistics_of

__all__ = ["TrainingAsked", "TrainingRun"]

_SEEN = 512  # samples that a float copy which is made anew is watched with, at most


@dataclass(frozen=True)
class TrainingAsked:
    """What was asked for; see :func:`corank.train`."""

    recipe: Recipe
    layers: Mapping[str, LayerOverride]
    all_layers: bool = False
    reference: str | None = None
    teacher: nn.Module | None = None
    own_loss: bool = False


@dataclass(frozen=True)
class TrainingRun:
    """A training that is set up.

    Attributes:
        context: of the float network, norms folded, its structure changed as the recipe says: what the start is coded
            from.
        teacher: of what is distilled from: the float network as it was given, or another.
        recipe: to carry out.
        draft: the record without results.
        model: that will train: float32, its norms apart.
        norms: that can be folded.
        dtype: of the network as it was given.
    """

    context: Context
    teacher: Context
    recipe: Recipe
    draft: ModelRecord
    model: nn.Module
    norms: list[NormAfter]
    dtype: torch.dtype

    @classmethod
    def of(cls, model: nn.Module, data: Any, asked: TrainingAsked, options: ContextOptions) -> TrainingRun:
        """Sets a training up; the model is not changed.

        Raises:
            ConfigError, ModelError, DataError: for what cannot train.
        """
        recipe = asked.recipe
        width = None if recipe.inputs is None else recipe.inputs.bits
        template = PlanTemplate(_preset(recipe), asked.layers, None, asked.all_layers, width)
        origin = Origin(asked.reference, "train", None)
        request = QuantizeRequest(template, Width(None, 0.0), UniformRanks(), Refinement(iterations=0), origin)
        own = copy.deepcopy(model).float().eval()
        teacher = context = open_context(own, data, options)
        structure: Structure = ()
        if recipe.structure:
            probe = context.samples.first(2)
            structure = find_structure(own, lambda one: run(one, probe, device_of(one)), recipe.structure, width)
            _apply(own, structure)
            context = open_context(own, data, options)
        if asked.teacher is not None:
            teacher = _taught_by(asked, asked.teacher, context)
        draft = drafted(request, context)
        draft = replace(draft, structure=(*draft.structure, *structure), recipe=stored_recipe(recipe))
        as_held(own, list(draft.plan.coded()))
        own.to(context.device)
        with alone():
            fit_operands(context, own)
        if recipe.start == "scratch":
            anew(own, options.seed)
        modules = dict(own.named_modules(remove_duplicate=False))
        norms = [NormAfter(n, modules[n], modules[layer]) for n, layer in context.prepared.folded_into.items()]
        for norm in norms:
            norm.turn()
        dtype = next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)
        made = cls(context, teacher, recipe, draft, own, norms, dtype)
        made.check()
        return made

    def rest(self) -> None:
        """Frees the float copies, where no step asks them: :meth:`float_copy` makes one anew."""
        for context in (self.context, self.teacher):
            context.model.to("meta")

    def float_copy(self, model: nn.Module, options: ContextOptions) -> nn.Module:
        """The float network of :attr:`context`.

        Args:
            model: as it was given for the training.
            options: of the training.
        """
        if not any(one.is_meta for one in self.context.model.parameters()):
            return self.context.model
        own = copy.deepcopy(model).float().eval()
        _apply(own, self.draft.structure)
        return open_context(own, list(self.context.samples.take(_SEEN).batches), options).model

    @property
    def ends_in_float(self) -> bool:
        """Whether nothing is coded in the end."""
        return self.recipe.ends_in_float

    def check(self) -> None:
        """Raises ConfigError for layers that cannot train as the recipe says."""
        tried: list[WeightTraining] = []
        for name, plan in self.draft.plan.coded().items():
            assert plan.codec is not None
            with for_layer(name, plan.codec):
                way = self._way(plan)
                if way is not None and way not in tried:
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
        """The state at the start; what the start is coded from is kept in the context's checkpoint."""
        starts = self._coded(context) if self.recipe.start == "codes" else self._in_float(context)
        return begin(self.model, starts, self.norms, self.recipe, context.seed)

    def recorded(
        self, results: Mapping[str, LayerResult], history: tuple[Any, ...], notes: tuple[str, ...]
    ) -> ModelRecord:
        """The record of what came of it; errors of layers are not in it."""
        plan = self.draft.plan.with_codecs({name: one.code.codec for name, one in results.items()})
        signs = {name: one.code.inputs.shifts for name, one in results.items() if one.code.inputs is not None}
        shifted = {name: replace(plan.layers[name], input_shifts=shifts) for name, shifts in signs.items()}
        kept = set(self.kept_norms.values())
        return replace(
            self.draft, plan=Plan({**plan.layers, **shifted}), iterations=self.recipe.iterations, history=history,
            notes=notes, samples=len(self.context.samples),
            folded=tuple(name for name in self.draft.folded if name not in kept),
        )  # fmt: skip

    def _in_float(self, context: Context) -> dict[str, LayerStart]:
        coded = self.draft.plan.coded()
        rounded = {name: one for name, one in coded.items() if one.inputs is not None}
        with alone():
            quantizers = fitted_before(context, rounded)
        return {
            name: LayerStart(self._way(one), self._inputs(one), None, None, quantizers.get(name))
            for name, one in coded.items()
        }

    def _coded(self, context: Context) -> dict[str, LayerStart]:
        plan, own, folded = self.draft.plan, context.within("start"), not self.kept_norms
        if not folded:  # a codec that cannot take part of a norm's gain is fitted to the weight that trains
            prepared = prepare(self.model, lambda one: run(one, context.samples.first(2), context.device), fold=False)
            own = replace(own, prepared=prepared)
        # coding writes the coded weights and biases into the layers, for those after them to see
        biases = {name: _copied(own.prepared.bias(name)) for name in plan.coded()}
        with alone():
            results = code_plan(plan, statistics_of(own, plan, keep=False), own)
        found: dict[str, LayerStart] = {}
        for name, result in results.items():
            bias, one, code = biases[name], plan.layers[name], result.code
            moved = None if result.bias is None or bias is None else result.bias - bias.to(result.bias.device)
            found[name] = LayerStart(self._way(one), self._inputs(one), code, moved, code.inputs, folded=folded)
        return found

    def _way(self, plan: LayerPlan) -> WeightTraining | None:
        recipe = self.recipe
        if recipe.weights is None or self.ends_in_float:
            return recipe.weights
        assert plan.codec is not None
        for way in (recipe.weights, recipe.edge):
            if way is not None and way.stored == plan.codec:
                return way
        return recipe.weights.with_codec(plan.codec)

    def _inputs(self, plan: LayerPlan) -> InputTraining | None:
        recipe = self.recipe
        if plan.inputs is None or recipe.inputs is None:
            return None
        if plan.inputs == recipe.inputs.bits or recipe.edge_inputs is None:
            return recipe.inputs
        return recipe.edge_inputs.with_bits(plan.inputs)


def _taught_by(asked: TrainingAsked, teacher: nn.Module, context: Context) -> Context:
    """The context with another network, of any kind, to learn outputs from.

    Raises:
        ModelError: where its outputs are not of the shape of the network's own, and no loss of the caller's reads them.
    """
    note(f"learned from a teacher that was given, a {type(teacher).__name__}")
    own = copy.deepcopy(teacher).float().eval().to(context.device)
    with torch.no_grad():
        outputs = run(own, context.samples.first(2), context.device)
    given, expected = ([tuple(one.shape) for one in tree_leaves(each)] for each in (outputs, context.prepared.outputs))
    if given != expected and not asked.own_loss:
        raise ModelError(
            f"the teacher gives outputs of shapes {str(given)[:100]} where the network gives {str(expected)[:100]}; "
            "a teacher has the network's classes"
        )
    return replace(context, prepared=replace(context.prepared, model=own, outputs=outputs))


def _apply(model: nn.Module, structure: Structure) -> None:
    """Changes a float network, whose operands are not rounded yet."""
    apply_structure(model, structure)
    for module in model.modules():
        if isinstance(module, RoundedOperand):
            module.active = False


def _copied(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.clone()


def _preset(recipe: Recipe) -> Preset:
    """What codes the start: ``quantize``'s own fast way, with the recipe's codecs."""
    fast = PRESETS["fast"]
    if recipe.ends_in_float:
        return replace(fast, search=UniformRanks(), budget=0.0)
    edge_codec = None if recipe.edge is None else recipe.edge.stored
    if recipe.weights is None or recipe.weights.stored is None or edge_codec is None:
        raise ConfigError("weights of low bits take an edge of low bits, e.g. Recipe(edge=LearnedStep(Uniform(8)))")
    fast = fast.with_codec(recipe.weights.stored)
    edge = replace(fast.edge, codec=edge_codec)
    return replace(fast, edge=edge, search=UniformRanks(), budget=0.0)
