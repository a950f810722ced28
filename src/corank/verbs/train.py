"""The public call that trains: start where ``quantize`` ends, let the weights move, end in the same coded layers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import torch
from torch import nn

from corank.autograd import recording
from corank.calibration import Context
from corank.calibration.augment import check_augmentation
from corank.calibration.batches import Batches
from corank.checkpoint import fingerprint
from corank.compiled import uncompiled
from corank.config import check_progress
from corank.devices import device_of
from corank.errors import ConfigError
from corank.identity import function_identity
from corank.notes import collected_notes
from corank.precision import exact_float32
from corank.processes import init_processes
from corank.progress import Progress
from corank.quantization.template import LayerOverride
from corank.storage.model_record import ATTRIBUTE
from corank.training.callbacks import Callback
from corank.training.errors_of_layers import layer_errors
from corank.training.finish import convert, settle
from corank.training.loop import train_steps
from corank.training.objective import Objective, OwnLoss
from corank.training.recipe import Recipe
from corank.training.recompute import check_recomputed, recomputing
from corank.training.state import TrainingState
from corank.verbs.arguments import check_kinds, check_numbers
from corank.verbs.opening import ContextOptions, with_checkpoint
from corank.verbs.training_data import calibrated_on, feed_of, of_pixels, read_labelled, reading_threads
from corank.verbs.training_run import TrainingAsked, TrainingRun
from corank.verbs.training_size import Sized, asked_recipe

__all__ = ["train"]


@uncompiled()
@recording()
@exact_float32()
def train(
    model: nn.Module,
    data: Any,
    recipe: str | Recipe | None = None,
    *,
    rate: float | None = None,
    size: int | str | None = None,
    iterations: int | None = None,
    batch_size: int | None = None,
    layers: Mapping[str, LayerOverride] | None = None,
    all_layers: bool = False,
    loss: OwnLoss | None = None,
    teacher: nn.Module | None = None,
    callbacks: Sequence[Callback] = (),
    samples: int | None = None,
    parts: int = 0,
    workers: int | None = None,
    recompute: bool = False,
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
            :class:`~corank.Recipe`; None: "stats-2bit", or "rate" where ``rate`` or ``size`` is given.
        rate: bits a weight that codes take after entropy coding, 0.05 to 6, as part of the loss: for the recipe "rate",
            or one whose weights train by learned steps of whole levels.
        size: instead of ``rate``, the size of the saved file: bytes or "20KB" (1 KB is 1000 bytes).
        iterations: steps; None for the recipe's.
        batch_size: samples a step; None for the recipe's.
        layers: exceptions by name pattern, as for :func:`corank.quantize`.
        all_layers: also give the first and the last layer the recipe's weights.
        loss: of one's own, ``(output, target) -> scalar``: the target is the float network's output, or the labels
            where the recipe's loss is "labels"; ``(output, reference, labels) -> scalar`` where it is "both".
        teacher: a trained network of any kind for the same inputs and outputs, to be distilled from in the place of the
            float network; a recipe's loss "labels" becomes "distil".
        callbacks: of one's own, run after the recipe's; they are not stored.
        samples: calibration samples that the start is coded from and norms are estimated on; None for 1600.
        parts: samples of a step that pass at once; 0 for all of them. Batch norms that adapt see each part alone.
        workers: threads that read and decode the batches of steps to come while one computes; 0 for none, None for as
            many as the machine has room for. The result is the same with any number.
        recompute: hold less of a step for its backward pass, and compute the network's blocks again there: for large
            networks; a step takes about a third longer.
        seed: draws samples, batches and augmentations.
        device: "auto" (CUDA if there is any, else CPU) or a torch device. The result is where ``model`` was.
        reference: what the model was made from, kept in the file for its reader; never executed.
        checkpoint: a folder that keeps what is done; the same call with the same folder goes on from there, to the
            identical result.
        progress: called with (what, done, total).

    Returns:
        A drop-in copy, in evaluation mode, as :func:`corank.quantize` returns it; what was done is at ``.corank_run``.
        A float network, where the recipe's ``weights`` is None or ends in float.

    Raises:
        ConfigError, ModelError, DataError, BudgetError, TrainingError: the model is then as it was.
    """
    started = time.perf_counter()
    check_kinds(model, layers=layers, device=device)
    check_progress(progress)
    init_processes()
    how, sized = asked_recipe(recipe, rate, size)
    how = _checked(_taught(_counted(how, iterations, batch_size), teacher), recompute)
    check_numbers(samples, how.batch_size, seed)
    options = ContextOptions(samples, 32, seed, device, True, None, progress)
    with collected_notes() as notes:
        batches = read_labelled(data, how.batch_size, seed)
        how = replace(sized.suited(how, batches), callbacks=of_pixels(how.callbacks, data))
        batches.check_labels(how.loss)
        threads = reading_threads(batches, workers)
        asked = TrainingAsked(how, layers or {}, all_layers, reference, teacher, loss is not None)
        work = TrainingRun.of(model, calibrated_on(data, batches, samples), asked, options)
        context = with_checkpoint(work.context, checkpoint, lambda: _identity(asked, work, batches, sized, loss))
        objective = Objective(how.loss, how.temperature, loss, context.samples.are_tokens)
        feed = feed_of(batches, how, objective, replace(context, prepared=work.teacher.prepared), parts)
        feed = replace(feed, workers=threads)
        state = work.begin(context)
        work = sized.steered(work, state, context)
        own = (*sized.watching(work, context), *of_pixels(callbacks, data))
        state.recipe = replace(work.recipe, callbacks=(*work.recipe.callbacks, *own))
        if feed.teacher is None or feed.teacher.kept is not None:
            work.rest()
        with recomputing(state) if recompute else nullcontext():
            history = train_steps(state, work.norms, feed, context)
        settle(state, work.norms, context)
        sized.keep_within(work, state, context)
        results = convert(state, work.norms, context)
    if not work.ends_in_float:
        record = work.recorded(results, history, tuple(notes.texts))
        errors = _errors(work, state, lambda: work.float_copy(model, options), context)
        found = {name: replace(one, relative_output_error=errors.get(name, nan)) for name, one in record.layers.items()}
        state.model.__dict__[ATTRIBUTE] = replace(record, layers=found, seconds=time.perf_counter() - started)
    return state.model.to(work.dtype).to(device_of(model))


def _errors(
    work: TrainingRun, state: TrainingState, floating: Callable[[], nn.Module], context: Context
) -> dict[str, float]:
    """How far each layer is from the float network's; of weights from scratch, which are another network's, nothing."""
    if state.recipe.start == "scratch":
        return {}
    return layer_errors(state.model, floating(), context.samples.first(32), work.kept_norms)


def _counted(recipe: Recipe, iterations: int | None, batch_size: int | None) -> Recipe:
    if iterations is not None:
        recipe = replace(recipe, iterations=iterations)
    return recipe if batch_size is None else replace(recipe, batch_size=batch_size)


def _taught(recipe: Recipe, teacher: nn.Module | None) -> Recipe:
    if teacher is None:
        return recipe
    if not isinstance(teacher, nn.Module):
        raise ConfigError(f"teacher={teacher!r:.60}: a network, e.g. train(model, data, teacher=trained)")
    return replace(recipe, loss="distil") if recipe.loss == "labels" else recipe


def _checked(recipe: Recipe, recompute: bool) -> Recipe:
    check_augmentation("none" if recipe.augment == "auto" else recipe.augment)
    if recompute:
        check_recomputed(recipe)
    return recipe


def _identity(
    asked: TrainingAsked, work: TrainingRun, batches: Batches, sized: Sized, loss: OwnLoss | None
) -> dict[str, Any]:
    teacher = asked.teacher
    return {
        "verb": "train", "recipe": work.recipe.to_json(), "plan": work.draft.plan.to_json(), "size": sized.size,
        "samples": batches.identity, "own loss": None if loss is None else function_identity(loss),
        **({} if teacher is None else {"teacher": fingerprint([*teacher.parameters(), *teacher.buffers()])}),
    }  # fmt: skip
