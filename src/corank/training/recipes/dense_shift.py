"""DenseShift (arXiv 2208.09708)."""

from __future__ import annotations

from corank.training.inputs import LearnedStepInputs
from corank.training.recipe import Optimizer, Recipe, Schedule
from corank.training.weights import DenseShiftLatents

__all__ = ["dense_shift"]


def dense_shift(bits: int, inputs: int | None) -> Recipe:
    """Signed powers of two without zero, from scratch, by signs of latents (arXiv 2208.09708).

    Verified: the decomposition, its backward pass, the start and the optimizer are those of the authors' code, which
    has 3 bits; 2 and 4 follow the same recursion. Ours: a power of two a weight, which a norm takes up; the first and
    last layer in 8 bits and not float; the number of steps (theirs: 200 epochs of ImageNet); inputs of few bits;
    ``start="codes"`` and ``"float"``, for which ``optimizer=Optimizer()`` is the better one.
    """
    return Recipe(
        weights=DenseShiftLatents(bits),
        inputs=None if inputs is None else LearnedStepInputs(inputs),
        loss="labels",
        start="scratch",
        optimizer=Optimizer("sgd", rate=0.1, step_rate=0.1, decay=1e-4),
        schedule=Schedule("cosine", warm=0.0),
        batch_size=256,
    )
