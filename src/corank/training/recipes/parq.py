"""PARQ, piecewise-affine regularized quantization (Jin et al., 2025, arXiv 2503.15748)."""

from __future__ import annotations

from corank.codecs import Binary, Codec, Levels
from corank.training.callbacks import Steepen
from corank.training.inputs import LearnedStepInputs
from corank.training.recipe import Optimizer, Recipe
from corank.training.weights import Parq

__all__ = ["parq"]


def parq(bits: int, inputs: int | None) -> Recipe:
    """Weights under a piecewise-affine map that steepens, from the float network; verified against the authors' code.

    At 1 bit the values are LSBQ's, plus and minus the mean magnitude. Ours: from 2 bits on, equally spaced values whose
    scale is that of least squared error (LSBQ has a free spacing); one scale a row; the loss, the optimizer and inputs
    of learned steps, which the paper has none of.
    """
    most = 2**bits - 1
    rate = 1e-2 if bits == 1 and inputs is None else Optimizer().rate  # measured: signs turn slowly
    codec: Codec = Binary() if bits == 1 else Levels(bits, tuple(float(one) for one in range(-most, most + 1, 2)))
    return Recipe(
        weights=Parq(codec, refit=10),
        inputs=None if inputs is None else LearnedStepInputs(inputs),
        callbacks=(Steepen(),),
        start="float",
        optimizer=Optimizer(rate=rate),
    )
