"""Random bias initialization (arXiv 1909.13446), a reconstruction."""

from corank.codecs import Binary
from corank.errors import ConfigError
from corank.training.callbacks import RandomBias
from corank.training.recipe import Recipe
from corank.training.weights import StraightThrough

__all__ = ["random_bias"]


def random_bias(bits: int, inputs: int | None) -> Recipe:
    """A binary network from scratch whose norms start with random biases. Needs labels.

    Reconstruction: that biases are drawn is the paper's; the distribution, ``U(-1, 1)``, is ours.

    Raises:
        ConfigError: for other bits than 1.
    """
    if bits != 1 or inputs is not None:
        raise ConfigError("random-bias trains binary weights from scratch: random-bias-1bit")
    return Recipe(weights=StraightThrough(Binary()), callbacks=(RandomBias(),), start="scratch", loss="labels")
