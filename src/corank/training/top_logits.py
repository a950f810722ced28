"""A teacher's logits as its largest few and the mass of the rest: what of a large vocabulary can be kept.

Shapes: ``N`` samples, ``T`` tokens of each, ``V`` tokens of the vocabulary, ``k`` of them kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from corank.losses import sequence_logits

__all__ = ["LargestLogits", "TopLogits", "divergence_from_top"]

_LARGE = 16  # times the logits that are kept: smaller vocabularies stay whole


class TopLogits(NamedTuple):
    """What is kept of logits ``(N, T, V)``.

    Attributes:
        values: the largest of each position ``(N, T, k)``, in the dtype of the logits.
        indices: their tokens ``(N, T, k)`` int32.
        rest: ``(N, T, 1)`` float32: the logarithm of the others' sum of exponentials, divided by the temperature.
    """

    values: Tensor
    indices: Tensor
    rest: Tensor


@dataclass(frozen=True)
class LargestLogits:
    """Keeps the largest logits of a language model with a large vocabulary; anything else stays as it is.

    Attributes:
        count: ``k``; vocabularies of up to 16 times as many tokens stay whole.
        temperature: at which the rest's mass is taken.
    """

    count: int
    temperature: float

    def __call__(self, output: Any) -> Any:
        """:class:`TopLogits` of logits ``(N, T, V)``."""
        logits = sequence_logits(output)
        if logits is None or logits.shape[-1] <= _LARGE * self.count:
            return output
        values, indices = logits.topk(self.count, dim=-1)
        others = (logits.float() / self.temperature).scatter(-1, indices, -torch.inf)
        return TopLogits(values, indices.int(), others.logsumexp(-1, keepdim=True))


def divergence_from_top(given: Tensor, expected: TopLogits, temperature: float) -> Tensor:
    """``KL(expected || given)`` of ``k + 1`` outcomes, each of the kept tokens or any other, mean over positions, in
    nats. Where all tokens are kept it is the divergence of the softmaxes; otherwise at most that.

    Args:
        given: logits ``(N, T, V)``, float32.
        expected: of the teacher, float32.
        temperature: of both softmaxes.
    """
    given, kept = given / temperature, expected.indices.long()
    theirs = torch.cat([expected.values / temperature, expected.rest], -1).log_softmax(-1)
    others = given.scatter(-1, kept, -torch.inf).logsumexp(-1, keepdim=True)
    ours = torch.cat([given.gather(-1, kept), others], -1) - given.logsumexp(-1, keepdim=True)
    if kept.shape[-1] == given.shape[-1]:  # no other is left, and its -inf less -inf is no number
        theirs, ours = theirs[..., :-1], ours[..., :-1]
    return F.kl_div(ours.flatten(0, -2), theirs.flatten(0, -2), log_target=True, reduction="batchmean")
