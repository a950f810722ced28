"""How far one model's outputs are from another's, without labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from corank.errors import ModelError
from corank.padding import output_mask, real_outputs
from corank.transfer import sent

__all__ = [
    "Loss",
    "distance",
    "kl_divergence",
    "logits_of",
    "output_distance",
    "read_part",
    "sensitivity_target",
    "sequence_logits",
    "token_distance",
]

Loss = Callable[[Any, Any], Tensor]


def logits_of(output: Any) -> Tensor | None:
    """The logits ``(N, classes)`` in a model's output (a tensor, or under "logits"); None if there are none."""
    return _logits(output, 2)


def sequence_logits(output: Any) -> Tensor | None:
    """The logits ``(N, T, vocabulary)`` in a language model's output: a tensor, under "logits", or the first of a
    tuple; None if there are none."""
    return _logits(output[0] if isinstance(output, (tuple, list)) and output else output, 3)


def kl_divergence(output: Any, reference: Any) -> Tensor:
    """``KL(reference || output)`` of the softmaxes of two outputs' logits ``(N, classes)``, mean over samples, in nats.

    Raises:
        ModelError: when the outputs are not logits.
    """
    given, expected = logits_of(output), logits_of(reference)
    if given is None or expected is None:
        raise ModelError(
            "the model's output is not logits (N, classes); give a loss of your own: "
            "quantize(..., loss=lambda output, reference: ...)"
        )
    return F.kl_div(given.log_softmax(1), expected.log_softmax(1), log_target=True, reduction="batchmean")


def token_distance(output: Any, reference: Any) -> Tensor:
    """What is minimised for a language model when no loss is given: :func:`kl_divergence` of the next token, mean over
    all positions; :func:`output_distance` where the output has no logits ``(N, T, vocabulary)``."""
    given, expected = sequence_logits(output), sequence_logits(reference)
    if given is None or expected is None:
        return output_distance(output, reference)
    return kl_divergence(given.flatten(0, 1), expected.flatten(0, 1))


def distance(loss: Loss, output: Any, reference: Any, batch: Any) -> Tensor:
    """``loss(output, reference)`` of what a batch gave, padding left out.

    Positions that the batch's attention mask masks are no part of what the losses of this module see; a loss of one's
    own sees the whole outputs.

    Args:
        loss: ``(output, reference) -> scalar``.
        output, reference: of the two models.
        batch: what the models were called with.
    """
    mask = output_mask(batch) if loss in _OWN else None
    if mask is None:
        return loss(output, reference)
    return loss(real_outputs(mask, output), real_outputs(mask, reference))


def read_part(output: Any, loss: Loss) -> Any:
    """What ``loss`` reads of a reference output: the logits alone for the losses of this module, so that the rest (a
    language model's cache of keys and values) need not be kept."""
    logits = sequence_logits(output) if loss is token_distance else None
    if logits is None and loss in _OWN:
        logits = logits_of(output)
    return output if logits is None else logits


def output_distance(output: Any, reference: Any) -> Tensor:
    """What is minimised when no loss is given: :func:`kl_divergence` for logits, else the squared error of every
    floating tensor in the output, relative to the reference's energy."""
    if logits_of(reference) is not None:
        return kl_divergence(output, reference)
    total: Tensor | None = None
    for given, expected in zip(tree_leaves(output), tree_leaves(reference), strict=True):
        if isinstance(expected, Tensor) and expected.is_floating_point():
            part = (given - expected).square().sum() / expected.square().sum().clamp(min=1e-12)
            total = part if total is None else total + part
    if total is None:
        raise ModelError("the model's output holds no floating tensor; give quantize(..., loss=...)")
    return total


_OWN: tuple[Loss, ...] = (token_distance, output_distance, kl_divergence)


def sensitivity_target(
    output: Any, generator: torch.Generator, tokens: bool = False, mask: Tensor | None = None
) -> Tensor:
    """A scalar whose gradient's second moment is the Fisher information of the output.

    For logits: the log-likelihood of labels drawn from the model's own softmax, summed over samples (at the float
    model the KL to itself has no gradient); with ``tokens``, over all positions of a language model's logits.
    Otherwise a random projection of every floating tensor. ``mask`` ``(N, T)`` says which positions of sequences are
    real; None: all.
    """
    sequences = sequence_logits(output) if tokens else None
    if sequences is not None and mask is not None:
        sequences = real_outputs(mask, sequences)
    logits = logits_of(output) if sequences is None else sequences.flatten(0, 1)
    if logits is not None:
        chances = logits.detach().softmax(1).cpu()
        labels = sent(torch.multinomial(chances, 1, generator=generator), logits.device)
        return logits.log_softmax(1).gather(1, labels).sum()
    total: Tensor | None = None
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.requires_grad:
            count = max(1, leaf.shape[0])
            real = leaf if mask is None else real_outputs(mask, leaf)
            direction = torch.randn(real.shape, generator=generator, dtype=torch.float32).to(real)
            scale = real.detach().square().sum().clamp(min=1e-12).sqrt() / count**0.5
            part = (real * direction).sum() / scale
            total = part if total is None else total + part
    if total is None:
        raise ModelError("no floating output of the model depends on its layers")
    return total


def _logits(output: Any, dimensions: int) -> Tensor | None:
    if isinstance(output, Mapping):
        output = output.get("logits")
    elif isinstance(output, (tuple, list)) and len(output) == 1:
        output = output[0]
    if (
        isinstance(output, Tensor)
        and output.is_floating_point()
        and output.dim() == dimensions
        and output.shape[-1] > 1
    ):
        return output
    return None
