"""OFQ whole: StatsQ, query-key reparametrization, confidence-guided annealing (ICML 2023, arXiv 2302.02210)."""

from __future__ import annotations

from corank.errors import ConfigError
from corank.training.inputs import LearnedStepInputs
from corank.training.recipe import Optimizer, Recipe
from corank.training.recipes.cga import cga

__all__ = ["ofq"]

_RATE = 1e-4  # measured: the start is lost at the rate of convolutions, and at twice this much of it


def ofq(bits: int, inputs: int | None) -> Recipe:
    """:func:`cga` for vision transformers: queries and keys become one weight a head, the operands of both products of
    attention are rounded as inputs are, and inputs have a learned shift of each channel.

    Verified: the equations of StatsQ, QKR and the offsets are those of the authors' code. Ours: what :func:`cga` says;
    one step a layer, not one a token, so that a network takes any number of tokens; the second offset is left to the
    biases behind it; a bias of queries is kept, where the authors drop it; the product ``W_qk`` is annealed, too, where
    the authors' mask has no effect on it; the rate, of few short runs.

    Args:
        bits: of weights, 2 to 8.
        inputs: bits of inputs and operands, 2 to 8; None for float.

    Raises:
        ConfigError: for other bits.
    """
    if bits < 2 or inputs == 1:
        raise ConfigError("ofq takes 2 bits or more, as its grid of 1 bit has a third level: ofq-w2a2")
    return cga(bits, inputs).replaced(
        inputs=None if inputs is None else LearnedStepInputs(inputs, shift=True),
        optimizer=Optimizer(rate=_RATE),
        structure=("query-key",),
    )
