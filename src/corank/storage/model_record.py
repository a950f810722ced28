"""What travels with a quantized model: what was done to it, and what came of it. Plain numbers, no tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from corank.adapters import full_rank
from corank.errors import ModelError
from corank.layers import LayerFormat, TensorSpec
from corank.layers.meta import check_values
from corank.layers.packed_layers import is_packed
from corank.layers.structure import Structure
from corank.plan import LayerPlan, Plan
from corank.storage.histogram import Histogram

__all__ = ["ATTRIBUTE", "PARTS", "LayerRecord", "ModelRecord", "part_of", "run_of"]

ATTRIBUTE = "corank_run"
PARTS: tuple[str, ...] = ("codes", "scales", "adapter")


@dataclass(frozen=True)
class LayerRecord:
    """One quantized layer.

    Attributes:
        shape: ``(G, R, C)``.
        relative_output_error: ``mean |y - y_q|^2 / mean |y|^2`` on the calibration inputs, of the layer as it was
            coded: what a refinement moves afterwards, for the sake of the network's outputs, is not in it.
        spectrum: error along each adapter direction before the adapter, descending, as it was coded; empty where
            no layer got an adapter, and once read from a file.
        histogram: of the float weights, norms folded; None once read from a file.
    """

    shape: tuple[int, int, int]
    relative_output_error: float
    spectrum: tuple[float, ...] = ()
    histogram: Histogram | None = None

    @property
    def weights(self) -> int:
        groups, rows, columns = self.shape
        return groups * rows * columns

    def stored_bits(self, plan: LayerPlan) -> int:
        """All bits stored for the layer's weight, and for the step of its inputs."""
        return sum(slot.count * slot.bits for slot in self.slots(plan).values())

    def stored_parts(self, plan: LayerPlan) -> dict[str, int]:
        """The bits of :meth:`stored_bits`, divided into codes, adapter, and the scales and offsets of all else."""
        parts = dict.fromkeys(PARTS, 0)
        for name, slot in self.slots(plan).items():
            parts[part_of(name)] += slot.count * slot.bits
        return parts

    def slots(self, plan: LayerPlan) -> dict[str, TensorSpec]:
        """What the layer stores by that plan, in order."""
        assert plan.codec is not None
        rank, shifts = self.rank(plan), plan.input_shifts
        return LayerFormat(self.shape, plan.codec, rank, plan.adapter_bits, plan.inputs, shifts).tensors()

    def rank(self, plan: LayerPlan) -> int:
        """The plan's rank, or the layer's full rank where that is less."""
        return min(plan.rank, full_rank(self.shape))


@dataclass(frozen=True)
class ModelRecord:
    """How a quantized model came about; found on it as ``model.corank_run``.

    Attributes:
        plan: what each layer got.
        layers: name to :class:`LayerRecord` of every quantized layer, in the order they run.
        folded: norms folded into the layer before them.
        skipped: layers left in float, with the reason.
        model: the reference the model was made from, if known; never executed.
        preset, search: names of the recipe.
        bits, budget: what was asked for (budget in extra bits per quantized weight).
        activations: bits of the layers' inputs that were asked for; None for inputs in float, or a plan of one's own.
        seed: of calibration positions and search batches.
        iterations: gradient steps taken.
        seconds: that it took, evaluation left out; None once read from a file.
        history: one entry for each gradient step; empty once read from a file.
        samples: calibration samples that the layers were coded from; None once read from a file.
        notes: what else there is to know of the run, one or two sentences each; empty once read from a file.
        recipe: of a training, as :meth:`corank.Recipe.to_json` writes it; None where nothing trained. Read from a file
            it is data, whatever it says: :func:`corank.recipe_of` makes a recipe of it.
        structure: how the network differs from its original class; see :mod:`corank.layers.structure`.
        candidates: networks of other widths that were coded to the same size, and how near each was; empty where none
            were tried, and once read from a file.
    """

    plan: Plan
    layers: Mapping[str, LayerRecord]
    folded: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    model: str | None = None
    preset: str | None = None
    search: str | None = None
    bits: int | None = None
    budget: float | None = None
    activations: int | None = None
    seed: int = 0
    iterations: int = 0
    seconds: float | None = None
    history: tuple[Mapping[str, float], ...] = ()
    samples: int | None = None
    notes: tuple[str, ...] = ()
    recipe: Mapping[str, Any] | None = None
    structure: Structure = ()
    candidates: tuple[Mapping[str, Any], ...] = ()

    @property
    def weights(self) -> int:
        """Quantized weights."""
        return sum(layer.weights for layer in self.layers.values())

    @property
    def stored_bits(self) -> int:
        """All bits stored for the quantized layers' weights."""
        return sum(layer.stored_bits(self.plan.layers[name]) for name, layer in self.layers.items())

    @property
    def equivalent_bits(self) -> float:
        """All bits stored for the quantized layers' weights (codes, scales, offsets, adapters, the 8-bit layers at
        their width) over the number of those weights."""
        return self.stored_bits / self.weights

    def layer_records(self) -> list[dict[str, Any]]:
        """One plain dict for each layer, as records and reports take them."""
        records = []
        for name, layer in self.layers.items():
            plan = self.plan.layers[name]
            groups, rows, columns = layer.shape
            records.append(
                {
                    "name": name,
                    "shape": [groups * rows, columns],
                    "bits": plan.codec.bits if plan.codec else None,
                    "rank": layer.rank(plan),
                    "max_rank": full_rank(layer.shape),
                    "bytes": -(-layer.stored_bits(plan) // 8),
                    "stored_bits": layer.stored_parts(plan),
                    "relative_output_error": layer.relative_output_error,
                    "spectrum": list(layer.spectrum[:64]),
                }
            )
        return records


def part_of(slot: str) -> str:
    """Which of :data:`PARTS` a slot of a layer belongs to; offsets and the inputs' step count as scales."""
    return "adapter" if slot.startswith(("left_", "right_")) else "codes" if slot == "codes" else "scales"


def run_of(model: nn.Module) -> ModelRecord:
    """The :class:`ModelRecord` of a model that corank quantized.

    Raises:
        ModelError: for a model without one, or on the meta device.
    """
    found = model.__dict__.get(ATTRIBUTE)
    if not isinstance(found, ModelRecord):
        if is_packed(model):
            raise ModelError(
                f"this {type(model).__name__} has packed layers, which are for running; take the model that "
                "corank.to_packed was given, or corank.load(path, model) without packed="
            )
        raise ModelError(
            f"this {type(model).__name__} was not made by corank; save what corank.quantize or corank.load returned"
        )
    check_values(model)
    return found
