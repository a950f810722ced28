"""Weight Compander (arXiv 2306.16993), a reconstruction."""

from corank.errors import ConfigError
from corank.training.recipe import Optimizer, Recipe
from corank.training.weights import Compander

__all__ = ["compander"]


def compander(bits: int, inputs: int | None) -> Recipe:
    """A float network whose weights are bounded functions of what trains; ``quantize`` takes it next.

    Reconstruction: the function is recalled, not read. Ours: ``a`` and ``b`` per layer by exp, their start, its use
    before quantization. Needs labels. Its bits are 32: it ends in float weights.

    Raises:
        ConfigError: for other bits than 32, or bits of inputs.
    """
    if bits != 32 or inputs is not None:
        raise ConfigError("compander trains a float network: recipe='compander'; corank.quantize codes it then")
    return Recipe(
        weights=Compander(), edge=Compander(), edge_inputs=None, start="float", loss="labels",
        optimizer=Optimizer(rate=1e-3, decay=1e-4),
    )  # fmt: skip
