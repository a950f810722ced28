"""A short distillation of scales, biases and norms; the codes of ``quantize`` stay."""

from __future__ import annotations

from corank.codecs import Binary, Uniform
from corank.training.inputs import LearnedStepInputs
from corank.training.recipe import Optimizer, Recipe
from corank.training.weights import Scales

__all__ = ["refine"]


def refine(bits: int, inputs: int | None) -> Recipe:
    """What :class:`corank.Refinement` does of a network without adapters, as a training: no code moves.

    Ours. Where norms are folded they stay apart here until the end, and what is nowhere coded trains, too. Adam with
    one rate for biases and norms, and a faster one for scales, on the schedule of every recipe; distilled at a
    temperature of 1, as a refinement is.
    """
    return Recipe(
        weights=Scales(Binary() if bits == 1 else Uniform(bits, range="mse", half=bits < 8)),
        inputs=None if inputs is None else LearnedStepInputs(inputs),
        edge=Scales(Uniform(8, range="mse")),
        optimizer=Optimizer("adam", rate=3e-3, step_rate=3.3),
        temperature=1.0,
        iterations=250,
        batch_size=48,
        norms="frozen",
    )
