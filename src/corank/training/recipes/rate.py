"""The size of the file in the loss."""

from __future__ import annotations

from corank.codecs import RateUniform, Uniform
from corank.training.inputs import LearnedStepInputs
from corank.training.penalties import Rate
from corank.training.recipe import Optimizer, Recipe
from corank.training.weights import LearnedStep

__all__ = ["rate"]


def rate(bits: float, inputs: int | None = None) -> Recipe:
    """Learned steps and the price of every code in the loss, for entropy-coded files: ours.

    From the float weights, with steps of 1.2 standard deviations of their rows; the first and last layer have 8 bits.
    Rates were chosen on images; for sequences of tokens :func:`corank.train` takes the temperature and the learning
    rate that suit those, where the recipe is called by its name.

    Args:
        bits: mean bits a weight of the codes at the end.
        inputs: bits of inputs with learned steps; None for float inputs.
    """
    return Recipe(
        LearnedStep(RateUniform(5, float(min(3.0, max(0.1, bits))), group=0), spread=1.2),
        None if inputs is None else LearnedStepInputs(inputs),
        edge=LearnedStep(Uniform(8, range="mse")),
        penalties=(Rate(bits, reached=0.35),),
        temperature=4.0,
        start="float",
        optimizer=Optimizer(rate=6.35e-3),
    )
