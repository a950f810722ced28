"""A low-bit shift network for spoken words (arXiv 2207.07497), a reconstruction."""

from __future__ import annotations

from dataclasses import replace

from corank.training.inputs import LearnedStepInputs
from corank.training.recipe import Recipe
from corank.training.recipes.dense_shift import dense_shift
from corank.training.recipes.s3 import s3

__all__ = ["shift_speech", "shift_speech_s3"]


def shift_speech(bits: int, inputs: int | None) -> Recipe:
    """Speech to classes by a residual network whose weights are signed powers of two, from scratch (arXiv 2207.07497).

    A reconstruction: of the paper the abstract alone could be had, which says that a residual network reads speech and
    low-bit powers of two take the place of multiplications, not by which quantizer. The weights are DenseShift's, of
    the same authors (2 to 4 bits); :func:`shift_speech_s3` has S3's. Ours: the first and last layer in 8 bits, where
    DenseShift has float (``layers={"conv1": "float", "head": "float"}`` keeps them so); batches of 64 and the number of
    steps; no augmentation, since a mirrored spectrogram is speech backwards; inputs of few bits.
    """
    return _for_speech(dense_shift(bits, None), inputs)


def shift_speech_s3(bits: int, inputs: int | None) -> Recipe:
    """The same by S3's weights: zero and three signed powers of two in 3 bits; a reconstruction, too."""
    return _for_speech(s3(bits, None), inputs)


def _for_speech(recipe: Recipe, inputs: int | None) -> Recipe:
    """On waveforms, of which there are few."""
    return replace(
        recipe,
        inputs=None if inputs is None else LearnedStepInputs(inputs),
        augment="none",
        iterations=1000,
        batch_size=64,
    )
