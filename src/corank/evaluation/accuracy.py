"""Top-1 accuracy, and how closely one model follows another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from corank.calibration import run
from corank.data import ImageSet
from corank.errors import DataError, ModelError
from corank.losses import kl_divergence, logits_of

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """What a model scores.

    Attributes:
        samples: how many were seen.
        top1: percent of samples whose label is the largest logit; None without labels.
        agreement: percent of samples on which the model and the reference choose the same class; None without one.
        kl: ``KL(reference || model)`` in nats, mean over samples; None without a reference.
    """

    samples: int
    top1: float | None
    agreement: float | None = None
    kl: float | None = None


def evaluate(
    model: nn.Module,
    data: ImageSet | Iterable[Any],
    reference: nn.Module | None = None,
    *,
    batch_size: int = 100,
    device: str | torch.device | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation:
    """Scores a classifier.

    Args:
        model: gives logits ``(N, classes)``, alone or under "logits". Left in the mode it was in.
        data: an :class:`~corank.data.ImageSet`, or an iterable of ``(inputs, labels)`` batches or of inputs alone.
        reference: usually the float model; adds agreement and KL.
        batch_size: for an image set.
        device: where to run; None: where the model is.
        progress: called with (what, done, total) where the total is known.

    Raises:
        DataError: when there is nothing to score: no samples, or neither labels nor a reference.
        ModelError: when the output is not logits.
    """
    where = torch.device(device) if device is not None else _device(model)
    hits = same = seen = labelled = 0
    divergence = 0.0
    total = len(data) if isinstance(data, ImageSet) else 0
    training = {part: part.training for one in (model, reference) if one is not None for part in one.modules()}
    try:
        for part in training:
            part.training = False
        for inputs, labels in _batches(data, batch_size):
            with torch.no_grad():
                output = run(model, inputs, where)
                logits = _logits(output)
                if labels is not None:
                    labelled += len(labels)
                    hits += int((logits.argmax(1).cpu() == labels.cpu()).sum())
                if reference is not None:
                    expected = run(reference, inputs, where)
                    same += int((logits.argmax(1) == _logits(expected).argmax(1)).sum())
                    divergence += float(kl_divergence(output, expected)) * len(logits)
            seen += len(logits)
            if progress is not None and total:
                progress("evaluating", seen, total)
    finally:
        for part, was in training.items():
            part.training = was
    _check_counts(seen, labelled, reference is not None)
    top1 = 100.0 * hits / seen if labelled else None
    if reference is None:
        return Evaluation(seen, top1)
    return Evaluation(seen, top1, 100.0 * same / seen, divergence / seen)


def _check_counts(seen: int, labelled: int, compared: bool) -> None:
    if seen == 0:
        raise DataError("the evaluation data is empty")
    if labelled == 0 and not compared:
        raise DataError("the data has no labels; give labelled data, or evaluate(..., reference=float_model)")
    if labelled not in (0, seen):
        raise DataError(f"only {labelled} of {seen} samples have labels; label all or none")


def _batches(data: ImageSet | Iterable[Any], batch_size: int) -> Iterable[tuple[Any, Tensor | None]]:
    if isinstance(data, ImageSet):
        yield from data.batches(batch_size)
        return
    if isinstance(data, Tensor):
        yield from ((part, None) for part in data.split(batch_size))
        return
    for batch in data:
        if isinstance(batch, (tuple, list)) and len(batch) == 2:
            yield batch[0], batch[1]
        else:
            yield batch, None


def _logits(output: Any) -> Tensor:
    logits = logits_of(output)
    if logits is None:
        raise ModelError(
            "top-1 needs logits (N, classes), as a tensor or under 'logits'; this model gives something else"
        )
    return logits


def _device(model: nn.Module) -> torch.device:
    for tensor in tree_leaves([list(model.parameters()), list(model.buffers())]):
        return tensor.device
    return torch.device("cpu")
