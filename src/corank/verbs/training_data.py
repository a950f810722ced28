"""From what a user gives as data to the batches of a training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corank.calibration import Batches, Context, augmentation_for
from corank.data import ImageSet, TokenSet
from corank.data.pixel_scale import pixel_scale
from corank.data.shards import shards_in_turn
from corank.errors import ConfigError
from corank.memory import free_bytes
from corank.processes import processes_here
from corank.training.callbacks import Adversarial, Callback
from corank.training.checks import check_shapes
from corank.training.feed import Feed
from corank.training.objective import Objective
from corank.training.recipe import Recipe
from corank.training.teacher_cache import Remembering, TeacherOutputs
from corank.training.top_logits import LargestLogits

__all__ = ["calibrated_on", "feed_of", "of_pixels", "read_labelled", "reading_threads"]

_HELD_BYTES = 2_000_000_000  # of decoded images
_CALIBRATED = 1600  # samples, unless the caller says otherwise
_OFTEN = 20  # passes; measured on ResNet-20, 1 bit: 1.4 gain 1.4 points without shifts, 64 lose 0.6
_LOOKED_AT = 64  # of images that are decoded as they are needed, before the first step


def read_labelled(data: Any, batch_size: int, seed: int, samples: int | None = None) -> Batches:
    """Everything that :func:`corank.quantize` takes as data, with its labels where it has any.

    Images are decoded once where all of them take at most 2 GB as float32 (and half of the free memory), and else as
    they are needed. An iterable is read once, whole.

    Args:
        data: an :class:`~corank.data.ImageSet` or :class:`~corank.data.TokenSet`; a tensor ``(N, ...)``, a mapping of
            such with or without "labels", or a tuple of either and labels ``(N,)``; or an iterable of batches, such as
            a DataLoader: tensors, ``(inputs, labels)`` pairs or mappings.
        batch_size: samples a step, over all processes.
        seed: draws the samples, where there is a limit, and the batches.
        samples: at most this many; None: all there are.

    Raises:
        DataError: for empty data, other types, values that are not finite, images of different sizes, labels of some
            batches alone, or more than memory holds.
    """
    if isinstance(data, ImageSet):
        return _images(data if samples is None else data.sample(samples, seed), batch_size, seed)
    if isinstance(data, TokenSet):
        data = (data if samples is None else data.sample(samples, seed)).ids
    if _is_whole_pair(data):
        return Batches.of(data[0], data[1], batch_size, seed, samples)
    return Batches.of(data, None, batch_size, seed, samples)


def calibrated_on(data: Any, batches: Batches, samples: int | None) -> Any:
    """The samples that the start is coded from: those that :func:`corank.quantize` would code from; of what can be read
    but once, the first that were read."""
    if isinstance(data, Tensor):
        return data.float() if data.is_floating_point() else data
    if isinstance(data, (ImageSet, TokenSet)):
        return data
    return batches.samples(samples or _CALIBRATED)


def feed_of(batches: Batches, recipe: Recipe, objective: Objective, context: Context, size: int) -> Feed:
    """What the steps of a training are fed with; checked before the first.

    Args:
        batches: of the training.
        recipe: says how images are augmented, and how often samples are seen.
        objective: says whether the float network is asked.
        context: its model is the float network; large outputs of it are kept beside its checkpoint.
        size: samples that pass at once; 0 for all of a process's share.

    Raises:
        DataError: for labels or shapes that do not fit the network. ConfigError: see :class:`Feed`.
    """
    if not objective.is_own:
        batches.check_labels(recipe.loss, context.prepared.outputs)
    check_shapes(batches, context)
    name = _augmentation(recipe, batches) if recipe.augment == "auto" else recipe.augment
    augment, outputs = augmentation_for(name, batches.first(1), asked=recipe.augment not in ("none", "auto")), None
    if objective.distils:
        folder = context.checkpoint.folder
        shortened = LargestLogits(recipe.top_logits, recipe.temperature) if recipe.top_logits else None
        remembering = Remembering(
            recipe.iterations, None if folder is None else folder / "teacher",
            shortened=None if objective.is_own else shortened,
        )  # fmt: skip
        kept = remembering if augment == "none" else None
        outputs = TeacherOutputs(context.model, batches, kept, objective.read_part)
    return Feed(batches, outputs, objective, augment, size)


def of_pixels(callbacks: Sequence[Callback], data: Any) -> tuple[Callback, ...]:
    """The callbacks, of which those that change pixels are told how the data's became inputs, where it says so."""
    scale = pixel_scale(data)
    if scale is None:
        return tuple(callbacks)
    return tuple(
        replace(one, mean=scale[0], std=scale[1]) if isinstance(one, Adversarial) and not one.std else one
        for one in callbacks
    )


def reading_threads(batches: Batches, workers: int | None) -> int:
    """How many threads read the batches of the steps to come: as many as were asked for, or one for four cores of this
    process's share where samples are decoded as they are needed. What is in memory is not read ahead.

    Raises:
        ConfigError: a number that cannot be.
    """
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or not 0 <= workers <= 64):
        raise ConfigError(f"workers={workers!r}: threads that read ahead, 0 to 64, e.g. workers=1; None chooses")
    if not isinstance(batches.source, _Decoded):
        return 0
    cores = (os.cpu_count() or 1) // processes_here()
    return min(4, max(1, cores // 4)) if workers is None else workers


def _augmentation(recipe: Recipe, batches: Batches) -> str:
    """Of a recipe that leaves it to us: the float network is best on whole images, and what is distilled from it on
    others is worse; but samples that are seen often are learned by heart."""
    return "flip-shift" if recipe.iterations * batches.batch_size > _OFTEN * len(batches) else "flip"


def _is_whole_pair(data: Any) -> bool:
    """Whether it is inputs and class labels; a tuple of two batches is not."""
    if not isinstance(data, tuple) or len(data) != 2 or not isinstance(data[1], Tensor):
        return False
    inputs, labels = data
    classes = labels.dim() == 1 and not labels.is_floating_point()
    return classes and (isinstance(inputs, Mapping) or (isinstance(inputs, Tensor) and inputs.dim() > 1))


def _images(images: ImageSet, batch_size: int, seed: int) -> Batches:
    first = next(images.select([0]).batches(1))[0]
    turns = shards_in_turn(images)  # whether or not memory holds them: the order is a function of data and seed
    groups = None if turns is None else torch.from_numpy(turns)
    free = free_bytes()
    room = _HELD_BYTES if free is None else min(_HELD_BYTES, free / 2 / processes_here())
    if first.nbytes * len(images) > room:
        spread = np.linspace(0, len(images) - 1, min(_LOOKED_AT, len(images))).astype(np.int64)
        for _ in images.select(spread).batches(16):  # raises where sizes differ
            pass
        return Batches(_Decoded(images), batch_size, seed, groups)
    labels = None if images.labels is None else torch.from_numpy(images.labels)
    held = Batches.of(images.tensor(), labels, batch_size, seed)
    return held if groups is None else Batches(held.source, batch_size, seed, groups)


@dataclass(frozen=True, eq=False)
class _Decoded:
    """Images that are decoded when a step needs them."""

    images: ImageSet

    @property
    def labels(self) -> tuple[Tensor, ...]:
        return () if self.images.labels is None else (torch.from_numpy(self.images.labels),)

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        return next(self.images.select(indices.numpy()).batches(len(indices)))
