"""StatsQ of OFQ (Liu, Liu, Cheng, ICML 2023, arXiv 2302.02210)."""

from __future__ import annotations

from corank.codecs import Binary, StatsQ
from corank.training.callbacks import Meters
from corank.training.inputs import LearnedStepInputs
from corank.training.recipe import Optimizer, Recipe
from corank.training.weights import StraightThrough

__all__ = ["stats"]


def stats(bits: int, inputs: int | None) -> Recipe:
    """Weights on a grid without zero whose scale is twice the mean magnitude of its row, anew every step; gradients
    pass as they are; inputs with a learned step (LSQ).

    Verified: the equations are those of the authors' code. Ours: inputs have one step a layer and no learned biases;
    scales are stored in fp16, and trained so; the start from ``quantize``'s codes; distillation without labels; AdamW
    at our rate, without decay. At 1 bit the grid is not defined (half to even makes a third level): ``Binary`` takes
    its place, the sign times the mean magnitude.

    Args:
        bits: of weights, 1 to 8.
        inputs: bits of inputs, 2 to 8; None for float.
    """
    # measured: signs turn more slowly than codes of more bits; with inputs of few bits the usual rate is the better
    rate = Optimizer().rate if inputs is not None or bits > 2 else 1e-2 if bits == 1 else 4e-3
    return Recipe(
        weights=StraightThrough(Binary() if bits == 1 else StatsQ(bits)),
        inputs=None if inputs is None else LearnedStepInputs(inputs),
        callbacks=(Meters(),),
        optimizer=Optimizer(rate=rate),
        # measured: where inputs are float, norms that adapt help one bit alone
        norms="adapt" if inputs is not None or bits == 1 else "frozen",
    )
