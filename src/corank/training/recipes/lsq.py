"""Learned step size quantization (arXiv 1902.08153)."""

from __future__ import annotations

from corank.codecs import Binary, Uniform
from corank.training.inputs import LearnedStepInputs
from corank.training.recipe import Recipe
from corank.training.weights import LearnedStep

__all__ = ["lsq"]


def lsq(bits: int, inputs: int | None) -> Recipe:
    """Equally spaced values whose step is learned, of weights and inputs (arXiv 1902.08153).

    Verified against later papers' code: forward, and the gradients of weights and steps. Ours: a step a row, with an
    offset that stays, not one a layer about zero; a step is its start times ``exp`` of what trains, and so positive,
    and its gradient is not scaled by ``1 / sqrt(N Q)``, which AdamW undoes; it starts at least squared error or at the
    codes' own, not at ``2 mean|w| / sqrt(Q)``; the first and last layer learn theirs at 8 bits, too; 1 bit (signs, the
    mean magnitude learned) is an extension; distillation, AdamW and the steps are those of every recipe.
    """
    codec = Binary() if bits == 1 else Uniform(bits, range="mse", half=bits < 8)
    return Recipe(
        weights=LearnedStep(codec),
        inputs=None if inputs is None else LearnedStepInputs(inputs),
    )
