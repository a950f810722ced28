"""Gradient l1 regularization (arXiv 2002.07520)."""

from corank.errors import ConfigError
from corank.training.penalties import GradientL1
from corank.training.recipe import Optimizer, Recipe

__all__ = ["gradient_l1"]


def gradient_l1(bits: int, inputs: int | None) -> Recipe:
    """A float network that loses less when ``quantize`` rounds it, at every width: nothing is rounded while it trains.

    The penalty is the paper's; its strength, when it begins and the learning rate are a reconstruction. Needs labels:
    distilled from itself, a network has no gradient to penalise at the start. Bits are 32: it ends in float weights.

    Raises:
        ConfigError: for other bits than 32, or bits of inputs.
    """
    if bits != 32 or inputs is not None:
        raise ConfigError("gradient-l1 trains a float network: recipe='gradient-l1'; corank.quantize codes it then")
    return Recipe(
        weights=None, edge=None, edge_inputs=None, penalties=(GradientL1(),), loss="labels", start="float",
        optimizer=Optimizer(rate=5e-4),
    )  # fmt: skip
