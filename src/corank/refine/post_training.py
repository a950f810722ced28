"""What may follow the coding: a distillation of what ships anyway, or codes learned block by block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from corank.calibration import Context
from corank.refine.blocks import BlockReconstruction, reconstruct
from corank.refine.loop import refine
from corank.refine.refinement import Refinement

__all__ = ["PostTraining", "post_train", "remaining"]

PostTraining = Refinement | BlockReconstruction


def remaining(how: PostTraining, spent: int) -> PostTraining:
    """A refinement less the steps that a search has taken; a block reconstruction as it is."""
    return replace(how, iterations=max(0, how.iterations - spent)) if isinstance(how, Refinement) else how


def post_train(
    model: nn.Module, teacher: nn.Module, how: PostTraining, context: Context
) -> tuple[Mapping[str, float], ...]:
    """:func:`~corank.refine.refine` or :func:`~corank.refine.reconstruct`, as ``how`` asks; see there.

    A block reconstruction takes no loss and keeps no checkpoint of its own.
    """
    if isinstance(how, Refinement):
        return refine(model, teacher, how, context)
    return reconstruct(model, teacher, how, context)
