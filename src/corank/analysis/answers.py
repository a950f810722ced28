"""How well a network answers: log-probabilities of the classes that are right, or that it chooses itself."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from corank.calibration import Context
from corank.errors import DataError, ModelError
from corank.losses import logits_of, sequence_logits

__all__ = ["all_inputs", "answers_of", "log_chances"]


def all_inputs(context: Context, what: str) -> Tensor:
    """The context's samples as one floating tensor, where it works.

    Raises:
        DataError: for token ids, mappings, or samples of several shapes: ``what`` has no theory of them.
    """
    batch = context.samples.rebatched(len(context.samples)).batches[0]
    if not isinstance(batch, Tensor) or not batch.is_floating_point() or len(batch) != len(context.samples):
        raise DataError(
            f"{what} looks at inputs that can move by a little: one floating tensor (N, ...), such as images; for "
            "token ids and mappings ask what='lipschitz'"
        )
    return batch.to(context.device)


def log_chances(output: Any) -> Tensor:
    """Log-probabilities ``(N, classes)`` of a model's output.

    Raises:
        ModelError: where it gives no logits.
    """
    logits = logits_of(output)
    if logits is None:
        sequence = sequence_logits(output)
        logits = None if sequence is None else sequence.flatten(0, 1)
    if logits is None:
        raise ModelError(
            "the model's output is not logits (N, classes), whose chances of the right class are asked for"
        )
    return logits.float().log_softmax(1)


def answers_of(output: Any, labels: Tensor | None) -> Tensor:
    """The class ``(N,)`` of each sample: its label, or where there is none what the float network chooses.

    Args:
        output: of the float network.
        labels: int64 ``(N,)``, or None.
    """
    chances = log_chances(output)
    if labels is None or labels.is_floating_point() or labels.shape != chances.shape[:1]:
        return chances.argmax(1)
    if int(labels.max()) >= chances.shape[1]:
        raise DataError(f"the label {int(labels.max())} is none of the model's {chances.shape[1]} classes")
    return labels.to(chances.device)
