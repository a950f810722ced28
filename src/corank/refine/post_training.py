"""One call for both ways to tune a coded model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import nn

from corank.calibration import Samples
from corank.checkpoint import Checkpoint
from corank.losses import Loss
from corank.refine.blocks import BlockReconstruction, reconstruct
from corank.refine.loop import refine
from corank.refine.refinement import Refinement

__all__ = ["PostTraining", "remaining", "tune"]

PostTraining = Refinement | BlockReconstruction


def remaining(how: PostTraining, spent: int) -> PostTraining:
    """A refinement less the steps that a search has taken; a block reconstruction as it is."""
    return replace(how, iterations=max(0, how.iterations - spent)) if isinstance(how, Refinement) else how


def tune(
    model: nn.Module,
    teacher: nn.Module,
    samples: Samples,
    how: PostTraining,
    loss: Loss,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[Mapping[str, float], ...]:
    """:func:`~corank.refine.refine` or :func:`~corank.refine.reconstruct`, as ``how`` asks; see there.

    A block reconstruction takes no loss and keeps no checkpoint of its own.
    """
    if isinstance(how, Refinement):
        return refine(model, teacher, samples, how, loss, seed, progress, checkpoint)
    return reconstruct(model, teacher, samples, how, seed, progress)
