"""A batch's labels: what a training learns where it does not learn from the float network alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from corank.calibration.samples import LABELS, inputs_of, plain, real_samples, token_ids
from corank.errors import DataError
from corank.losses import logits_of, sequence_logits
from corank.padding import output_mask

__all__ = ["NOTHING", "check_fit", "following_tokens", "inputs_and_labels", "labels_of"]

NOTHING = -100  # torch's mark of a position that predicts nothing


def inputs_and_labels(batch: Any) -> tuple[Any, Tensor | None]:
    """A batch in any form that :func:`corank.quantize` takes, apart: its inputs, of which samples that are padding
    alone are left out, and its labels; None where there is no tensor of them.

    Labels of token sequences that repeat the tokens themselves (transformers' "labels" of a causal model, -100 where
    nothing is to be learned) become what each position predicts.

    Raises:
        DataError: for what is no batch, values that are not finite, and labels of another number of samples.
    """
    inputs = inputs_of(batch)
    labels = labels_of(batch, inputs)
    for leaf in tree_leaves(inputs):
        if leaf.is_floating_point() and not bool(torch.isfinite(leaf).all()):
            raise DataError("the training data holds NaN or infinite values")
    real = real_samples(inputs)
    if real is not None:
        inputs = tree_map(lambda leaf: leaf[real], inputs)
        labels = None if labels is None else labels[real]
    return inputs, labels


def following_tokens(inputs: Any) -> Tensor | None:
    """What each position of token sequences ``(N, T)`` predicts, the next token: int64 ``(N, T)``, -100 at the last
    position, at padding and before it. None for other inputs, and where a decoder has tokens of its own."""
    ids = token_ids(inputs)
    if ids is None or (isinstance(inputs, Mapping) and any(str(key).startswith("decoder_") for key in inputs)):
        return None
    found, mask = _shifted(ids), output_mask(inputs)
    if mask is not None:
        found[~mask] = NOTHING
        found[:, :-1][~mask[:, 1:]] = NOTHING
    return found


def labels_of(batch: Any, inputs: Any) -> Tensor | None:
    """The labels of a batch, on the CPU, as :func:`inputs_and_labels` gives them; ``inputs`` are its inputs."""
    found: Any = None
    if isinstance(batch, Sequence):
        found, batch = batch[1] if len(batch) > 1 else None, batch[0]
    if found is None and isinstance(batch, Mapping):
        found = next((batch[key] for key in LABELS if key in batch), None)
    if not isinstance(found, Tensor) or found.dim() == 0:
        return None
    if len(found) != _count(inputs):
        raise DataError(f"{len(found)} labels for {_count(inputs)} samples; give one for each")
    labels, ids = plain(found), token_ids(inputs)
    if labels.is_floating_point():
        return labels
    labels = labels.long()
    if ids is not None and labels.shape == ids.shape and bool(((labels == ids) | (labels == NOTHING)).all()):
        return _shifted(labels)
    return labels[:, 0] if labels.dim() == 2 and labels.shape[1] == 1 else labels


def _shifted(ids: Tensor) -> Tensor:
    """What each position predicts where that is the next one's token."""
    found = torch.full_like(ids, NOTHING)
    found[:, :-1] = ids[:, 1:]
    return found


def check_fit(labels: Tensor | None, inputs: Any, output: Any) -> None:
    """Raises DataError for labels whose cross entropy with the model's ``output`` for ``inputs``, where that is logits
    ``(N, classes)`` or ``(N, T, classes)``, cannot be taken."""
    logits = sequence_logits(output) if token_ids(inputs) is not None else None
    logits = logits_of(output) if logits is None else logits
    if logits is None or labels is None:
        return
    classes = logits.shape[-1]
    if labels.is_floating_point() and labels.shape[1:] == logits.shape[1:]:
        return  # a distribution for each sample
    if labels.is_floating_point() or labels.dim() != logits.dim() - 1:
        wanted = "(N,)" if logits.dim() == 2 else "(N, T)"
        raise DataError(
            f"labels are {labels.dtype} {tuple(labels.shape)}, and the model gives logits {tuple(logits.shape)}: give "
            f"whole numbers {wanted} below {classes}, or loss='distil', which needs none"
        )
    wrong = labels[(labels != NOTHING) & ((labels < 0) | (labels >= classes))]
    if len(wrong):
        raise DataError(f"the label {int(wrong[0])} is none of the model's {classes} classes, 0 to {classes - 1}")


def _count(inputs: Any) -> int:
    return len(tree_leaves(inputs)[0])
