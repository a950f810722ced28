"""The public call that teaches a coded network a task by an adapter beside its codes, which stay as they are."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from corank.autograd import recording
from corank.calibration import Context
from corank.calibration.augment import check_augmentation
from corank.compiled import uncompiled
from corank.config import check_progress
from corank.data import ImageSet
from corank.devices import chosen_device, device_of
from corank.errors import ConfigError
from corank.notes import collected_notes
from corank.precision import exact_float32
from corank.processes import init_processes
from corank.progress import Progress, silent
from corank.sizes import parse_size
from corank.storage.model_record import ATTRIBUTE, run_of
from corank.storage.task_adapter import adapted
from corank.training.loop import train_steps
from corank.training.objective import Objective
from corank.training.recipe import LOSSES, Optimizer, Recipe, Schedule
from corank.verbs.adapting_run import AdaptingAsked, AdaptingRun
from corank.verbs.arguments import check_kinds, check_numbers
from corank.verbs.opening import with_checkpoint
from corank.verbs.training_data import feed_of, read_labelled

__all__ = ["adapt"]

_PROBED = 32  # samples


@uncompiled()
@recording()
@exact_float32()
def adapt(
    model: nn.Module,
    data: Any,
    rank: int | Mapping[str, int] | None = None,
    *,
    size: int | str | None = None,
    classes: int | None = None,
    loss: str | None = None,
    teacher: nn.Module | None = None,
    biases: bool = True,
    adapter_bits: int = 8,
    iterations: int = 300,
    batch_size: int = 64,
    learning_rate: float = 1e-2,
    augment: str = "auto",
    seed: int = 0,
    device: str | torch.device = "auto",
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """A coded network taught a task by low-rank factors beside its codes, which stay as they are, bit for bit.

    LoRA (arXiv 2106.09685) on codes, as QLoRA (arXiv 2305.14314) has it, with CoRa's factors (arXiv 2408.00923): each
    linear layer and convolution computes with ``W + left @ right``, where ``W`` is what its codes and the adapter that
    it may have give. ``left`` starts at zero. Factors train rounded, as they are stored. :func:`corank.save_adapter`
    writes what the task added, :func:`corank.load_adapter` puts it on the base again.

    Args:
        model: the base, of :func:`corank.quantize`, :func:`corank.train` or :func:`corank.load`; it is not changed.
        data: of the task, with labels where the loss reads them: as for :func:`corank.train`.
        rank: of each layer's factors, at most what it takes; or ranks by layer name; 0 trains all else alone. None: 4.
        size: instead of ``rank``, of the adapter's file: bytes or "12KB" (1 KB is 1000 bytes). Ranks are then as even
            as they can be.
        classes: of the task: the base's last layer is replaced by one of so many rows, of 8-bit codes. None: as many
            as labels or teacher have, and the layer is replaced only where that is another number than the base's.
        loss: "labels", "distil" from the ``teacher``, or "both"; None: "labels", with a teacher "distil".
        teacher: a trained network for the task's inputs and classes.
        biases: whether biases and norms train as well, and are part of the adapter: 2 bytes each.
        adapter_bits: of the factors' codes, 2 to 8; layers that have an adapter already keep its width.
        iterations: steps, 0 for none.
        batch_size: samples a step.
        learning_rate: Adam's peak rate: of factors in units of their layer's weights, of a new last layer as it is,
            and 0.3 of it of biases and norms.
        augment: of images, as in a recipe: "auto", "none", "flip", ...
        seed: draws factors, a new last layer, batches and augmentations.
        device: "auto" (CUDA if there is any, else CPU) or a torch device. The result is where ``model`` is.
        checkpoint: a folder that keeps what is done; the same call with the same folder goes on from there, to the
            identical result.
        progress: called with (what, done, total).

    Returns:
        The base with the adapter: a coded network that :func:`corank.save` writes whole, that shares the base's codes,
        and carries what was added at ``.corank_adapter``.

    Raises:
        ConfigError, ModelError, DataError, BudgetError, TrainingError: the model is then as it was.
    """
    started = time.perf_counter()
    check_kinds(model, device=device)
    check_progress(progress)
    check_numbers(None, batch_size, seed)
    base, where = run_of(model), chosen_device(device, device_of(model))
    init_processes()
    wanted = None if size is None else parse_size(size)
    asked = AdaptingAsked(rank, wanted, classes, teacher, biases, adapter_bits, _named(data))
    check_augmentation("none" if augment == "auto" else augment)
    how = replace(_recipe(loss, teacher, learning_rate), iterations=iterations, batch_size=batch_size, augment=augment)
    with collected_notes() as notes:
        batches = read_labelled(data, batch_size, seed)
        batches.check_labels(how.loss)
        own = copy.deepcopy(model).float().eval().to(where)  # steps are smaller than half precision tells apart
        work = AdaptingRun.of(own, batches, asked, how, seed)
        context = Context(work.prepared, batches.samples(_PROBED), seed=seed, progress=progress or silent)
        context = with_checkpoint(context, checkpoint, lambda: work.identity(batches))
        objective = Objective(how.loss, how.temperature, None, context.samples.are_tokens)
        feed = feed_of(batches, how, objective, context, 0)
        history = train_steps(work.begun(seed), [], feed, context)
        adapter = work.adapter()
        work.check(adapted(own, adapter), context)
        found = adapted(model, adapter)
    record = found.__dict__[ATTRIBUTE]
    told, seconds = (*base.notes, *notes.texts), time.perf_counter() - started
    found.__dict__[ATTRIBUTE] = replace(record, history=history, notes=told, seconds=seconds)
    return found.eval()


def _recipe(loss: str | None, teacher: nn.Module | None, learning_rate: float) -> Recipe:
    """What of an adapter's training is a recipe; what trains, and how fast, is in the state's groups."""
    chosen = loss or ("labels" if teacher is None else "distil")
    if chosen not in LOSSES:
        raise ConfigError(
            f"loss={loss!r}: one of {', '.join(map(repr, LOSSES))}, e.g. adapt(base, data, loss='labels')"
        )
    if teacher is not None and not isinstance(teacher, nn.Module):
        raise ConfigError(f"teacher={teacher!r:.60}: a network, e.g. adapt(base, data, teacher=trained)")
    if (teacher is None) != (chosen == "labels"):
        raise ConfigError(
            f"loss={chosen!r} learns from a teacher of the task: adapt(base, data, loss={chosen!r}, teacher=trained)"
            if teacher is None
            else "loss='labels' learns nothing from the teacher; leave one of them out, or loss='both'"
        )
    return Recipe(
        weights=None, inputs=None, edge=None, edge_inputs=None, loss=chosen, norms="frozen",
        optimizer=Optimizer("adam", learning_rate), schedule=Schedule("cosine", warm=0.1), precision="auto",
    )  # fmt: skip


def _named(data: Any) -> int | None:
    """How many classes a set of images names."""
    return len(data.class_names) if isinstance(data, ImageSet) and data.class_names else None
