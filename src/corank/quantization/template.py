"""The base plan: what every layer gets before ranks are searched."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from corank.codecs import Codec
from corank.errors import ConfigError, ModelError
from corank.layers import PreparedModel
from corank.plan import TALLEST, LayerPlan, Plan, match
from corank.presets import Preset, chosen_codec

__all__ = ["LayerOverride", "PlanTemplate", "check_fitted", "check_plan"]

LayerOverride = int | str | Codec | LayerPlan
FLOAT = "float"
_FEW = 0.05  # of the numbers that are coded


@dataclass(frozen=True)
class PlanTemplate:
    """Makes the plan of a width, ranks zero, exceptions applied.

    Attributes:
        recipe: what a layer gets.
        layers: exceptions by name pattern, later ones winning.
        adapter_bits: None for the recipe's.
        all_layers: whether the first and last layer get the width, too.
        activations: bits of every layer's inputs, at the first and last layer 8; None leaves inputs in float.
    """

    recipe: Preset
    layers: Mapping[str, LayerOverride] = field(default_factory=dict)
    adapter_bits: int | None = None
    all_layers: bool = False
    activations: int | None = None

    def plan(self, prepared: PreparedModel, bits: int) -> Plan:
        """The plan of a prepared model whose codes have that width.

        Raises:
            ModelError: where a pattern matches nothing, or nothing is left to quantize.
        """
        names = list(prepared.targets)
        plans = dict.fromkeys(names, self._layer(bits))
        if not self.all_layers and len(names) > 2:
            edge = self.recipe.edge if self.activations is None else replace(self.recipe.edge, inputs=8)
            plans.update(dict.fromkeys(prepared.edges | _small_blind(prepared), edge))
        for pattern, choice in self.layers.items():
            for name in match(pattern, names):
                plans[name] = self._exception(choice, pattern)
        if all(plan.codec is None for plan in plans.values()):
            raise ModelError("every layer is left in float; nothing is quantized")
        return _with_shared(Plan(plans), prepared)

    def at_rate(self, rate: float) -> PlanTemplate:
        """The same at another rate."""
        return replace(self, recipe=self.recipe.at_rate(rate))

    def free(self, prepared: PreparedModel) -> set[str]:
        """The layers that no exception and no edge decides on: those whose codec a search may choose."""
        names = list(prepared.targets)
        decided = frozenset[str]() if self.all_layers or len(names) <= 2 else prepared.edges
        decided |= prepared.unseen  # nothing tells what another codec would lose there
        decided |= {name for name in names if prepared.geometry(name).matrix_shape[1] > TALLEST}
        return set(names) - decided.union(*(match(pattern, names) for pattern in self.layers))

    def _layer(self, bits: int) -> LayerPlan:
        plan = self.recipe.layer_plan(bits, self.adapter_bits)
        return plan if self.activations is None else replace(plan, inputs=self.activations)

    def _exception(self, choice: LayerOverride, pattern: str) -> LayerPlan:
        if isinstance(choice, LayerPlan):
            return choice
        if isinstance(choice, str) and choice == FLOAT:
            return LayerPlan(None)
        every = self._layer(self.recipe.codec.bits)
        try:
            if isinstance(choice, (str, Codec)):
                return replace(every, codec=chosen_codec(choice, self.recipe.codec))
            if isinstance(choice, int) and not isinstance(choice, bool) and 1 <= choice <= 8:
                if choice == 8 and not self.recipe.rate:
                    return replace(self.recipe.edge, inputs=every.inputs)
                return replace(every, codec=self.recipe.codec.for_bits(choice))
        except ConfigError as error:
            error.add_note(f"in layers={{{pattern!r}: {choice!r}}}")
            raise
        raise ConfigError(
            f"layers={{{pattern!r}: {choice!r}}}: give 1 to 8 bits, 'float', a codec, its name or a LayerPlan, "
            'e.g. layers={"conv1": 8, "*.downsample.*": "float"}'
        )


def _small_blind(prepared: PreparedModel) -> frozenset[str]:
    """Weights rounded without their inputs that are no tables, such as a transformer's positions, where they are so few
    that the bits of the first and last layer cost nothing."""
    sizes = {name: math.prod(prepared.geometry(name).matrix_shape) for name in prepared.targets}
    found = frozenset(name for name in prepared.blind if not prepared.geometry(name).looked_up)
    return found if sum(sizes[name] for name in found) <= _FEW * sum(sizes.values()) else frozenset()


def check_plan(plan: Plan, prepared: PreparedModel) -> Plan:
    """A plan given from outside: every layer it names is one of the model's; the rest stay float.

    Raises:
        ModelError: for a layer that the model does not have, or a plan that codes nothing.
    """
    for name in plan.layers:
        match(name, prepared.targets)
    if not plan.coded():
        raise ModelError("the plan leaves every layer in float; nothing is quantized")
    return _with_shared(Plan({name: plan.layers[name] for name in prepared.targets if name in plan.layers}), prepared)


def check_fitted(plan: Plan) -> None:
    """Raises ConfigError for a plan whose layers have inputs of 1 bit or shifted ones, which training alone gives."""
    binary = next((name for name, layer in plan.coded().items() if layer.inputs == 1), None)
    if binary is not None:
        raise ConfigError(
            f"layer {binary!r}: inputs of 1 bit are trained, not fitted: corank train; LayerPlan(..., inputs=2) or "
            "more bits need no training"
        )
    shifted = next((name for name, layer in plan.coded().items() if layer.input_shifts), None)
    if shifted is not None:
        raise ConfigError(
            f"layer {shifted!r}: shifts of inputs are trained, not fitted: corank train; LayerPlan(..., "
            "input_shifts=0) needs no training"
        )


def _with_shared(plan: Plan, prepared: PreparedModel) -> Plan:
    """The plan with what layers of the same codec share found in all of them. Inputs of layers that nothing is known
    of, or that a module reads the weight of alone, stay float; and where nothing tells which errors matter, they all
    do alike."""
    changed = dict(plan.layers)
    for name in plan.layers:
        if name in prepared.unseen | prepared.weight_only:
            changed[name] = replace(changed[name], inputs=None)
        if name in prepared.blind or prepared.geometry(name).matrix_shape[1] > TALLEST:
            changed[name] = replace(changed[name], fit="svd")
    plan = Plan(changed)
    users: dict[Codec, list[str]] = {}
    for name, layer in plan.layers.items():
        if layer.codec is not None and type(layer.codec).for_network is not Codec.for_network:
            users.setdefault(layer.codec, []).append(name)
    found = {codec: codec.for_network(prepared.weight(name) for name in names) for codec, names in users.items()}
    return plan.with_codecs({name: found[codec] for codec, names in users.items() for name in names})
