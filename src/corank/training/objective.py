"""What is minimised: the distance from the float network, labels, or a function of the user's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map

from corank.calibration.labels import NOTHING
from corank.errors import DataError
from corank.losses import logits_of, output_distance, sequence_logits
from corank.padding import output_mask, real_outputs
from corank.training.state import TrainingState
from corank.training.top_logits import TopLogits, divergence_from_top

__all__ = ["Objective", "OwnLoss", "label_loss"]

OwnLoss = Callable[..., Tensor]


class Objective:
    """The loss of a step, padding left out.

    Args:
        kind: "distil", "labels" or "both", as in a recipe.
        temperature: of the distillation of logits.
        own: a function of the user's in its place, ``(output, target) -> scalar``: the target is the float network's
            output where ``kind`` is "distil", the labels where it is "labels"; where it is "both",
            ``(output, reference, labels) -> scalar``.
        tokens: whether samples are sequences of tokens.
    """

    def __init__(self, kind: str, temperature: float, own: OwnLoss | None, tokens: bool) -> None:
        self._kind, self._temperature, self._own, self._tokens = kind, temperature, own, tokens

    @property
    def distils(self) -> bool:
        """Whether it needs the float network's outputs."""
        return self._kind != "labels"

    @property
    def is_own(self) -> bool:
        """Whether it is a function of the user's, which may read any labels."""
        return self._own is not None

    def read_part(self, output: Any) -> Any:
        """What is read of the float network's output, so that the rest need not be kept: logits, where it has them."""
        found = sequence_logits(output) if self._tokens else logits_of(output)
        return output if found is None or self._own is not None else found

    def __call__(self, state: TrainingState) -> Tensor:
        """A scalar with a graph, in nats for logits."""
        output, reference = _as_float(state.output), _as_float(state.reference)
        if self._own is not None:
            both = (reference, state.labels)
            return self._own(output, *(both if self._kind == "both" else both[:1] if self.distils else both[1:]))
        found: list[Tensor] = []
        if self.distils:
            found.append(self._distilled(output, reference, state.batch))
        if self._kind != "distil":
            found.append(label_loss(output, state.labels, self._tokens))
        return torch.stack(found).mean()

    def _distilled(self, output: Any, reference: Any, batch: Any) -> Tensor:
        mask = output_mask(batch) if self._tokens else None
        if mask is not None:
            output, reference = real_outputs(mask, output), real_outputs(mask, reference)
        read: Callable[[Any], Tensor | None] = sequence_logits if self._tokens else logits_of
        t, given = self._temperature, read(output)
        if isinstance(reference, TopLogits) and given is not None:
            return divergence_from_top(given, reference, t) * t * t
        expected = read(reference)
        if given is None or expected is None:
            return output_distance(output, reference)
        given, expected = given.flatten(0, -2) / t, expected.flatten(0, -2) / t
        kl = F.kl_div(given.log_softmax(1), expected.log_softmax(1), log_target=True, reduction="batchmean")
        return kl * t * t


def label_loss(output: Any, labels: Tensor | None, tokens: bool) -> Tensor:
    """Cross entropy of classes ``(N,)``, or of what each position of token sequences predicts, ``(N, T)``, -100 for
    nothing."""
    logits = sequence_logits(output) if tokens else logits_of(output)
    if logits is None or labels is None:
        raise DataError("labels train logits: (N, classes) with labels (N,), or (N, T, vocabulary) with labels (N, T)")
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten().to(logits.device), ignore_index=NOTHING)


def _as_float(output: Any) -> Any:
    return tree_map(
        lambda leaf: leaf.float() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, output
    )
