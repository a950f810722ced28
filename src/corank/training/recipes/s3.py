"""S3 (sign, sparse, shift; arXiv 2107.03453)."""

from __future__ import annotations

from corank.training.inputs import LearnedStepInputs
from corank.training.penalties import ShiftZero
from corank.training.recipe import Optimizer, Recipe, Schedule
from corank.training.weights import S3Latents

__all__ = ["s3"]


def s3(bits: int, inputs: int | None) -> Recipe:
    """Zero and three signed powers of two in 3 bits, from scratch, by signs of latents (arXiv 2107.03453).

    Verified: the decomposition, its backward pass, the regulariser and the optimizer are those of the authors' code.
    Ours: latents start at N(0, 2 / (k^2 C_in)), where theirs have C_out; a power of two a weight, which a norm takes
    up; the first and last layer in 8 bits and not float; the number of steps; inputs of few bits; ``start="codes"`` and
    ``"float"``, for which ``optimizer=Optimizer()`` is the better one.
    """
    return Recipe(
        weights=S3Latents(bits),
        inputs=None if inputs is None else LearnedStepInputs(inputs),
        penalties=(ShiftZero(),),
        loss="labels",
        start="scratch",
        optimizer=Optimizer("sgd", rate=0.1, step_rate=0.1, decay=1e-4),
        schedule=Schedule("cosine", warm=0.0),
        batch_size=256,
    )
