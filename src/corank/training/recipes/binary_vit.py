"""BinaryViT (arXiv 2306.16678)."""

from __future__ import annotations

from corank.errors import ConfigError
from corank.training.inputs import SignInputs
from corank.training.recipe import Optimizer, Recipe, Schedule
from corank.training.weights import CentredSigns

__all__ = ["binary_vit"]


def binary_vit(bits: int, inputs: int | None) -> Recipe:
    """Signs of centred weights and shifted signs of inputs, from scratch, for :class:`~corank.models.BinaryViT`.

    Verified: both formulas with their gradients, and the optimizer, are those of the authors' code. Ours: labels are
    learned unless a teacher is given (theirs learns from one alone); the first and last layer in 8 bits, where theirs
    are float (``layers={"patch": "float", "head": "float"}`` keeps them so); the number of steps (theirs: 300 epochs of
    ImageNet in batches of 512); shifts of images by up to an eighth where theirs are cropped.

    Raises:
        ConfigError: for other widths than 1 bit of both.
    """
    if (bits, inputs) != (1, 1):
        raise ConfigError("binary-vit has weights and inputs of 1 bit: binary-vit-w1a1")
    return Recipe(
        weights=CentredSigns(),
        inputs=SignInputs(unit=True),
        loss="labels",
        temperature=1.0,
        start="scratch",
        optimizer=Optimizer("adamw", rate=5e-4, step_rate=1.0),
        schedule=Schedule("cosine", warm=0.0, floor=0.02),
        iterations=1000,
        augment="flip-shift",
    )
