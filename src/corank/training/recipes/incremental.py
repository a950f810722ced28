"""Weight aligning for class-incremental learning (WA, arXiv 1911.07053)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from corank.codecs import Binary, Uniform
from corank.errors import ConfigError, DataError
from corank.losses import logits_of
from corank.training.inputs import LearnedStepInputs
from corank.training.recipe import Optimizer, Recipe
from corank.training.weights import LearnedStep, StraightThrough

__all__ = ["KnownClasses", "incremental"]


def incremental(bits: int, inputs: int | None) -> Recipe:
    """How :func:`corank.train_classes` trains; by its name alone a float network, "weight-aligning-4bit" one in codes.

    Verified against third-party code (PyCIL): the loss (:class:`KnownClasses`), its weight and temperature, and the
    factor of the new classes' rows. Ours: learning rates and steps, which are those of a short run, and low bits, which
    start at the codes of ``quantize`` with the first and last layer at 8 bits. The paper also keeps the last layer's
    weights positive while it trains, which neither that code nor this does.

    Raises:
        ConfigError: for rounded inputs beside float weights.
    """
    if bits > 8 and inputs is not None:
        raise ConfigError("weight-aligning rounds inputs of low-bit weights alone, e.g. 'weight-aligning-w4a4'")
    shared = Recipe(loss="both", optimizer=Optimizer("sgd", rate=0.05, step_rate=0.2, decay=2e-4))
    if bits > 8:
        return shared.replaced(weights=None, edge=None, edge_inputs=None, start="float")
    return shared.replaced(
        edge=StraightThrough(Uniform(8), refit=1),  # whose rows may grow as far as they do in float
        weights=LearnedStep(Binary() if bits == 1 else Uniform(bits, range="mse", half=bits < 8)),
        inputs=None if inputs is None else LearnedStepInputs(inputs),
    )


@dataclass(frozen=True)
class KnownClasses:
    """``(1 - l) CE + l KD``, the loss of a network that knows some classes and learns others beside them.

    ``CE`` is the cross entropy of all classes with the labels, and ``KD = -sum softmax(old / T) log softmax(new / T)``
    over the known classes, the means over the samples; ``l`` is the known classes' share of all. No factor ``T^2``.

    Args:
        known: classes that the old network tells apart, the first of the new network's.
        temperature: ``T``.
    """

    known: int
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if type(self.known) is not int or self.known < 1:
            raise ConfigError(f"KnownClasses(known={self.known!r}): how many classes are known, from 1")
        if type(self.temperature) not in (int, float) or not 0 < self.temperature <= 1e3:
            raise ConfigError(f"KnownClasses(temperature={self.temperature!r}): a positive number, e.g. 2.0")

    def __call__(self, output: Any, reference: Any, labels: Tensor) -> Tensor:
        """A scalar with a graph, of logits ``(N, C)``, the old network's ``(N, known)`` and labels ``(N,)``."""
        logits, old = logits_of(output), logits_of(reference)
        if logits is None or old is None:
            raise DataError(
                "classes are learned by logits (N, C), as a tensor or under 'logits'; this model has others"
            )
        share, t = self.known / logits.shape[1], self.temperature
        expected, given = (old[:, : self.known] / t).softmax(1), (logits[:, : self.known] / t).log_softmax(1)
        distilled = -(expected * given).sum(1).mean()
        return (1 - share) * F.cross_entropy(logits, labels.to(logits.device)) + share * distilled
