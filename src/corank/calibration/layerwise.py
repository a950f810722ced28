"""Forward passes that pause at every layer: sequential calibration at the cost of one pass, without tracing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from corank.calibration.interleaved import interleaving_of
from corank.calibration.paused import PausedPasses
from corank.calibration.repeated import RepeatedPasses
from corank.notes import note

__all__ = ["LayerwisePasses"]

_ANEW = (
    "the network keeps something on itself between its layers, so that batches cannot walk through it side by side: "
    "each ran anew for every layer, which is slow and right; a forward() that keeps such values in local variables is "
    "calibrated at the cost of one pass"
)


class LayerwisePasses:
    """All batches walking through a model together; use as a context manager.

    Each batch waits before the layer that is asked for until all have been there, so that every batch runs once.
    Networks that this would change, which two samples tell, are run anew for every layer instead, with a note.

    Args:
        model: in evaluation mode; its weights may change between two layers.
        targets: layers to wait before, by name, in the order they run.
        batches: of inputs.
    """

    def __init__(self, model: nn.Module, targets: Mapping[str, nn.Module], batches: Sequence[Any]) -> None:
        device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
        seen = interleaving_of(model, targets, batches, device)
        if seen.sound:
            self._passes = PausedPasses(model, targets, batches, device, ahead=seen.at_once)
        else:
            note(_ANEW)
            self._passes = RepeatedPasses(model, targets, batches, device)

    def __enter__(self) -> LayerwisePasses:
        return self

    def __exit__(self, *_: object) -> None:
        self._passes.close()

    def begin(self, batch: int, name: str) -> None:
        """Sends a batch on towards layer ``name`` without waiting for it."""
        self._passes.begin(batch, name)

    def inputs(self, batch: int, name: str) -> Tensor | None:
        """What layer ``name`` is about to be called with on that batch; None where the batch does not come by it."""
        return self._passes.inputs(batch, name)

    def change(self, name: str, change: Callable[[Tensor], Tensor]) -> None:
        """From now on layer ``name`` computes from ``change(inputs)``, in every call of every batch."""
        self._passes.change(name, change)
