"""What is minimised: the distance from the float network, labels, or a function of the user's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map

from corank.errors import ConfigError
from corank.losses import Loss, logits_of, output_distance, sequence_logits
from corank.padding import output_mask, real_outputs
from corank.training.state import TrainingState

__all__ = ["Objective", "label_loss"]


class Objective:
    """The loss of a step, padding left out.

    Args:
        kind: "distil", "labels" or "both", as in a recipe.
        temperature: of the distillation of logits.
        own: a function of the user's in its place, ``(output, target) -> scalar``: the target is the float network's
            output where ``kind`` is "distil", else the labels.
        tokens: whether samples are sequences of tokens.
    """

    def __init__(self, kind: str, temperature: float, own: Loss | None, tokens: bool) -> None:
        self._kind, self._temperature, self._own, self._tokens = kind, temperature, own, tokens
        if own is not None and kind == "both":
            raise ConfigError("a loss of one's own has one target; take loss 'distil' or 'labels' beside it")

    @property
    def distils(self) -> bool:
        """Whether it needs the float network's outputs."""
        return self._kind != "labels"

    def __call__(self, state: TrainingState) -> Tensor:
        """A scalar with a graph, in nats for logits."""
        output, reference = _as_float(state.output), _as_float(state.reference)
        if self._own is not None:
            return self._own(output, reference if self.distils else state.labels)
        found: list[Tensor] = []
        if self.distils:
            found.append(self._distilled(output, reference, state.batch))
        if self._kind != "distil":
            found.append(label_loss(output, state.labels, state.batch, self._tokens))
        return torch.stack(found).mean()

    def _distilled(self, output: Any, reference: Any, batch: Any) -> Tensor:
        mask = output_mask(batch) if self._tokens else None
        if mask is not None:
            output, reference = real_outputs(mask, output), real_outputs(mask, reference)
        read: Callable[[Any], Tensor | None] = sequence_logits if self._tokens else logits_of
        given, expected = read(output), read(reference)
        if given is None or expected is None:
            return output_distance(output, reference)
        t = self._temperature
        given, expected = given.flatten(0, -2) / t, expected.flatten(0, -2) / t
        kl = F.kl_div(given.log_softmax(1), expected.log_softmax(1), log_target=True, reduction="batchmean")
        return kl * t * t


def label_loss(output: Any, labels: Tensor | None, batch: Any, tokens: bool) -> Tensor:
    """Cross entropy of class labels ``(N,)``, or of the next token of each position."""
    if not tokens:
        logits = logits_of(output)
        if logits is None or labels is None:
            raise ConfigError("labels train a classifier: logits (N, classes) and labels (N,)")
        return F.cross_entropy(logits, labels.to(logits.device))
    logits = sequence_logits(output)
    ids = batch["input_ids"] if isinstance(batch, dict) else batch
    if logits is None:
        raise ConfigError("the model gives no logits (N, T, vocabulary) whose next token could be learned")
    mask = output_mask(batch)
    targets = ids[:, 1:] if mask is None else torch.where(mask[:, 1:].to(ids.device), ids[:, 1:], -100)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten().to(logits.device))


def _as_float(output: Any) -> Any:
    return tree_map(
        lambda leaf: leaf.float() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, output
    )
