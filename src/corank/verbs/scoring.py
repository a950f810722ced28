"""What a quantized model loses against the float one, which is scored once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from corank.data import ImageSet, TokenSet
from corank.evaluation import Evaluation, Recorder, Replay, evaluate, kept_samples
from corank.progress import Progress, silent

__all__ = ["Scorer", "drop"]


class Scorer:
    """A float model's score and outputs, and the samples that others are scored on beside it.

    Args:
        model: the float model.
        data: as for :func:`corank.evaluate`.

    Attributes:
        found: what the float model scores.
    """

    def __init__(self, model: nn.Module, data: ImageSet | TokenSet | Iterable[Any]) -> None:
        self._model, self._data = model, kept_samples(data)
        recorder = Recorder(model)
        self.found = evaluate(model, self._data, recorder)
        self._outputs = recorder.outputs

    def __call__(self, model: nn.Module, progress: Progress = silent) -> Evaluation:
        """What a model scores, with agreement and divergence from the float one."""
        reference = self._model if self._outputs is None else Replay(self._outputs)
        return evaluate(model, self._data, reference, progress=progress)


def drop(original: Evaluation, found: Evaluation) -> float:
    """Points of top-1 lost; nats per token added; without labels, percent of samples of another class."""
    if original.nats is not None and found.nats is not None:
        return found.nats - original.nats
    if original.top1 is None or found.top1 is None:
        return 100.0 - (found.agreement or 0.0)
    return original.top1 - found.top1
