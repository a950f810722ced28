"""Random bias initialization (arXiv 1909.13446), a reconstruction."""

from corank.codecs import Binary
from corank.errors import ConfigError
from corank.training.callbacks import RandomBias
from corank.training.inputs import SignInputs
from corank.training.recipe import Recipe
from corank.training.weights import StraightThrough

__all__ = ["random_bias"]


def random_bias(bits: int, inputs: int | None) -> Recipe:
    """A binary network from scratch whose norms start with random biases. Needs labels.

    Reconstruction: that biases are drawn is the paper's; the distribution, ``U(-1, 1)``, is ours, and so are the parts
    of later papers that binary inputs come with (RPReLU and real-valued shortcuts).

    Args:
        bits: of weights, 1.
        inputs: 1, signs whose gradient is one within a step and zero beyond; None leaves inputs in float.

    Raises:
        ConfigError: for other bits.
    """
    if bits != 1 or inputs not in (None, 1):
        raise ConfigError("random-bias trains binary networks from scratch: random-bias-w1a1, or random-bias-1bit")
    return Recipe(
        weights=StraightThrough(Binary()),
        inputs=None if inputs is None else SignInputs(shift=False, gradient="clip"),
        structure=() if inputs is None else ("rprelu", "shortcut"),
        callbacks=(RandomBias(),),
        start="scratch",
        loss="labels",
    )
