"""A short distillation from the float network over what ships anyway: a recipe on the training loop."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from corank.calibration import Context, live_numbers, run
from corank.errors import DataError, TrainingError
from corank.losses import Loss, distance
from corank.notes import note
from corank.processes import number_of_processes
from corank.refine.draws import Draws
from corank.refine.features import FeatureDistance
from corank.refine.judge import Judge
from corank.refine.refinement import Refinement
from corank.refine.trainable_model import TrainableModel, coded_layers
from corank.training.failures import NotFiniteError
from corank.training.feed import Feed
from corank.training.loop import train_steps
from corank.training.recipe import Optimizer, Recipe, Schedule
from corank.training.state import TrainingState

__all__ = ["begun", "refine"]

_STEP = "refinement"
_LIVE_BYTES = 3 << 30  # of activations that wait for the backward pass


def refine(
    model: nn.Module, teacher: nn.Module, refinement: Refinement, context: Context
) -> tuple[Mapping[str, float], ...]:
    """Tunes a coded model in place: scales, biases, norms, adapter factors and, if asked, the codes themselves.

    Norm statistics stay as they are. If the distance on (up to 512 of) the samples is not smaller afterwards, the
    model is left as it was; with ``augment`` it is the mean of those as they are and flipped and shifted. Batches too
    large for memory are run in parts. A loss that is not finite ends the steps before it, with a note.

    Args:
        model: holds :class:`~corank.layers.CodedLayer` modules.
        teacher: the float model, norms folded as in ``model``.
        refinement: how.
        context: of the run: its samples and its loss, a seed that draws batches and augmentation, and a checkpoint that
            keeps the state every 25 steps; a state found in it is continued.

    Returns:
        One entry for each step: iteration, divergence; the last one also has the distances before and after on the
        samples that judge the result.
    """
    if refinement.iterations == 0:
        return ()
    student, judge = TrainableModel(model, refinement), Judge(teacher, refinement, context)
    plain, before = judge(model)
    state, feed = begun(student, teacher, refinement, context, pace=refinement.pace(plain))
    try:
        train_steps(state, [], feed, _told(context))
    except TrainingError as error:
        if not isinstance(error.__cause__, NotFiniteError):
            raise error.__cause__ or error from None  # too little memory, for which it has advice for a training
        note(f"the refinement ended before step {state.step + 1}, whose numbers are not finite; lower its rates")
    unrefined = copy.deepcopy(model.state_dict())
    student.harden_into(model)
    _, after = judge(model)
    if not after < before:
        model.load_state_dict(unrefined)
    history = [{"iteration": one["iteration"], "divergence": one.get("task", one["loss"])} for one in state.history]
    return (*history[:-1], *({**last, "before": before, "after": after} for last in history[-1:]))


def begun(
    student: TrainableModel, teacher: nn.Module, how: Refinement, context: Context, pace: float = 1.0
) -> tuple[TrainingState, Feed]:
    """The training that a refinement is, before its first step; ``pace`` is a factor of all learning rates."""
    samples, device = context.samples, next(iter(coded_layers(student.network).values())).weight.device
    by_rate: dict[float, list[Tensor]] = {}  # all of a rate together: a step takes one pass over each group
    for _, parameter, rate in student.trained():
        by_rate.setdefault(rate, []).append(parameter)
    even = -(-min(how.batch_size, len(samples)) // number_of_processes())
    size = max(1, min(_LIVE_BYTES // (8 * live_numbers(student.network, samples.first(1), device)), even))
    bfloat16 = _runs_in_bfloat16(how, teacher, samples.first(size), device)
    state = TrainingState(_recipe(how, bfloat16), student, teacher, {}, context.seed)
    state.groups = [{"params": own, "lr": rate * pace} for rate, own in by_rate.items()]
    draws = Draws(samples, how.batch_size, context.seed)
    outputs, objective = _Computed(teacher, device), _Objective(context.loss)
    return state, Feed(draws, outputs, objective, how.augmentation, size, dtype=None, even=False)


def _recipe(how: Refinement, bfloat16: bool) -> Recipe:
    """What of a refinement is a recipe; what trains, and how fast, is in the state's groups."""
    return Recipe(
        weights=None, inputs=None, edge=None, edge_inputs=None, loss="distil", norms="frozen", augment=how.augmentation,
        penalties=(FeatureDistance(how.features),) if how.features > 0 else (),
        optimizer=Optimizer("adam"), schedule=Schedule("cosine", warm=0.1),
        iterations=how.iterations, batch_size=how.batch_size, precision="bfloat16" if bfloat16 else "float32",
    )  # fmt: skip


def _told(context: Context) -> Context:
    """With steps that are kept and told of under a refinement's own name."""
    return replace(
        context,
        checkpoint=context.checkpoint.within(_STEP),
        progress=lambda _, done, total: context.progress("refining", done, total),
    )


@dataclass(frozen=True)
class _Computed:
    """The float network's outputs, computed in each step: on samples that are augmented, all differ."""

    teacher: nn.Module
    device: torch.device
    kept: str | None = None

    def outputs(self, step: int, batch: Any, start: int = 0) -> Any:
        with torch.no_grad():
            return run(self.teacher, batch, self.device)


@dataclass(frozen=True)
class _Objective:
    """The distance that the run is measured in."""

    loss: Loss

    def __call__(self, state: TrainingState) -> Tensor:
        return distance(self.loss, _as_float(state.output), _as_float(state.reference), state.batch)


def _runs_in_bfloat16(how: Refinement, teacher: nn.Module, batch: Any, device: torch.device) -> bool:
    """Whether passes are to run under bfloat16 autocast, and can: a ``forward()`` that puts what a layer gave into a
    float32 tensor of its own cannot."""
    if not how.uses_bfloat16(device) or how.precision != "auto":
        return how.uses_bfloat16(device)
    try:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            run(teacher, batch, device)
    except DataError:
        note("refined in float32, as the network does not run under bfloat16 autocast, in which this device is faster")
        return False
    return True


def _as_float(output: Any) -> Any:
    return tree_map(
        lambda leaf: leaf.float() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, output
    )
