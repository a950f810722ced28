"""Samples that configurations are chosen on: those that nothing was calibrated on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from corank.calibration import Samples, run, token_ids
from corank.devices import device_of
from corank.errors import DataError, ModelError
from corank.losses import logits_of, sequence_logits
from corank.precision import exact_float32
from corank.tuning.trial import Measurement
from corank.watching import evaluating

__all__ = ["Selection"]


@dataclass(frozen=True)
class Selection:
    """Samples, and what the float network makes of them.

    Attributes:
        samples: inputs.
        labels: int64 ``(N,)``; None to score by agreement with the float network.
        expected: the float network's classes, ``(N,)``, or a token each of sequences.
        counts: how many of those each batch has.
    """

    samples: Samples
    labels: Tensor | None
    expected: Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, model: nn.Module, samples: Samples, labels: Tensor | None = None) -> Selection:
        """Runs the float network once.

        Raises:
            ModelError: for a network without logits. DataError: for labels of another number.
        """
        found = _classes(model, samples)
        expected = torch.cat(found)
        if labels is not None and labels.shape != expected.shape:
            raise DataError(f"{len(labels)} labels for {len(expected)} samples; give one for each")
        return cls(samples, labels, expected, tuple(map(len, found)))

    @cached_property
    def truth(self) -> Tensor:
        """What is right: the labels or, without them, what the float network says."""
        return self.expected if self.labels is None else self.labels

    @property
    def reference(self) -> float:
        """What the float network scores, in percent."""
        return 100.0 * float((self.expected == self.truth).double().mean())

    @property
    def scored(self) -> str:
        """What the score is."""
        return "same class as float" if self.labels is None else "top-1"

    def measured(self, model: nn.Module, share: float = 1.0) -> Measurement:
        """The percent that a network gets right of the first batches, a ``share`` of all.

        The standard error is that of the difference to the float network on the same samples, which is less than that
        of either score.
        """
        batches = max(1, math.ceil(share * len(self.samples.batches)))
        part = Samples(self.samples.batches[:batches], self.samples.stacked)
        found = torch.cat(_classes(model, part))
        truth, expected = self.truth[: len(found)], self.expected[: len(found)]
        hits = (found == truth).double()
        apart = hits - (expected == truth).double()
        error = 100.0 * float(apart.std(correction=0)) / math.sqrt(len(found))
        return Measurement(100.0 * float(hits.mean()), error, samples=len(found))


@exact_float32()
def _classes(model: nn.Module, samples: Samples) -> list[Tensor]:
    """The largest logit's class, a tensor for each batch."""
    found = []
    with torch.no_grad(), evaluating(model):
        for batch in samples.batches:
            found.append(_largest(run(model, batch, device_of(model)), batch).cpu())
    return found


def _largest(output: Any, batch: Any) -> Tensor:
    ids, sequences = token_ids(batch), sequence_logits(output)
    if ids is not None and sequences is not None and sequences.shape[:2] == ids.shape:
        return sequences.argmax(-1).flatten()
    logits = logits_of(output)
    if logits is None:
        shapes = [tuple(leaf.shape) for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        raise ModelError(
            f"tuning scores by logits (N, classes), or (N, T, vocabulary) of tokens; the model gives {shapes}; give a "
            "score of your own: tune(space=..., score=function)"
        )
    return logits.argmax(1)
