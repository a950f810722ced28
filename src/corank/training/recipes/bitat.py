"""BiTAT (arXiv 2207.01394), a reconstruction."""

from corank.codecs import Binary
from corank.errors import ConfigError
from corank.training.callbacks import LayerByLayer
from corank.training.penalties import Importance
from corank.training.recipe import Recipe
from corank.training.weights import StraightThrough

__all__ = ["bitat"]


def bitat(bits: int, inputs: int | None) -> Recipe:
    """Binary weights layer by layer, each binarized for the inputs that the quantized layers before it give.

    Reconstruction: from the abstract; that correlation and importance of inputs guide it, and that it goes layer by
    layer, is the paper's. Ours: the form ``(w - q)^T C (w - q)``, its strength, the schedule, float inputs.

    Raises:
        ConfigError: for other bits than 1, or bits of inputs.
    """
    if bits != 1 or inputs is not None:
        raise ConfigError("bitat trains binary weights with float inputs: bitat-1bit")
    return Recipe(
        weights=StraightThrough(Binary()), penalties=(Importance(),), callbacks=(LayerByLayer(),), start="float"
    )
