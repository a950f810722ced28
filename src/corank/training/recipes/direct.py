"""Direct Quantization (arXiv 2012.13762), a reconstruction."""

from corank.training.inputs import ChannelWeightedInputs
from corank.training.recipe import Optimizer, Recipe
from corank.training.weights import DirectLevels

__all__ = ["direct"]


def direct(bits: int, inputs: int | None) -> Recipe:
    """Levels and signs that are updated by gradients themselves, and inputs rounded for the majority of channels.

    Reconstruction: from the paper's abstract (IJCAI 2020); its equations could not be read. Ours: the sum of signed
    sizes, a scale a row, the start by alternating least squares, ``pi_c ~ 1 / Var``, distillation, 8 bits at the edges.
    """
    # Latents are numbers about one, not weights of a few hundredths: at their usual rate hardly a sign would turn.
    rounded = None if inputs is None else ChannelWeightedInputs(inputs)
    return Recipe(weights=DirectLevels(bits), inputs=rounded, start="float", optimizer=Optimizer(rate=1.5e-2))
