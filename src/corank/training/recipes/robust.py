"""Sparse and robust by a condition-number surrogate, in the manner of TSCNC (arXiv 2503.20454)."""

from __future__ import annotations

from corank.codecs import Uniform
from corank.errors import ConfigError
from corank.training.callbacks import Adversarial, ConditionNumbers, Sparsify
from corank.training.inputs import LearnedStepInputs
from corank.training.penalties import ConditionNumber, TransformedL1
from corank.training.recipe import Optimizer, Recipe
from corank.training.weights import LearnedStep

__all__ = ["robust"]


def robust(bits: int, inputs: int | None) -> Recipe:
    """Adversarial training of a network of which 90 % of the inner weights become zero, with two terms in the loss: a
    transformed l1, and a surrogate of the condition number of each weight.

    Reconstruction, from the abstract alone: that a sparsity term and a condition-number term are trained jointly inside
    adversarial training is the paper's; both functions, their factors, the attack (one step from a random start), the
    schedule of the zeros and low-bit weights are ours. Needs labels, and images that say how they were normalised. By
    its name alone it ends in a float network, with exact zeros; "robust-4bit" and the like in codes.

    Raises:
        ConfigError: for weights of 1 bit, which have no zero, and rounded inputs beside float weights.
    """
    if bits == 1 or (bits > 8 and inputs is not None):
        raise ConfigError(
            "robust keeps zeros: 2 to 8 bits, e.g. 'robust-4bit' or 'robust-w4a4'; 'robust' ends in float"
        )
    floating = bits > 8
    shared = Recipe(
        penalties=(TransformedL1(), ConditionNumber()),
        callbacks=(Adversarial("pgd:4/255,1,5/255"), Sparsify(0.9), ConditionNumbers()),
        loss="labels", start="float", optimizer=Optimizer(rate=2e-3),
    )  # fmt: skip
    if floating:
        return shared.replaced(weights=None, edge=None, edge_inputs=None)
    return shared.replaced(
        weights=LearnedStep(Uniform(bits, range="mse")),
        inputs=None if inputs is None else LearnedStepInputs(inputs),
    )
