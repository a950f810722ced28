"""DoReFa-Net (arXiv 1606.06160)."""

from __future__ import annotations

from corank.training.inputs import LearnedStepInputs
from corank.training.recipe import Recipe
from corank.training.weights import DoReFa

__all__ = ["dorefa"]


def dorefa(bits: int, inputs: int | None) -> Recipe:
    """Weights squeezed by tanh and rounded, straight through (arXiv 1606.06160).

    Reconstruction, of the equations as they are commonly given. Ours: the range is a constant of each weight and not 1;
    inputs have a learned step, where the paper clips them at 0 and 1; gradients are not quantized; the first and last
    layer have 8 bits; the start, distillation, AdamW and the steps are those of every recipe.
    """
    return Recipe(weights=DoReFa(bits), inputs=None if inputs is None else LearnedStepInputs(inputs))
