"""The float network's outputs: computed once where they are small enough, and what others are measured against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from corank.calibration.samples import Samples, run
from corank.devices import device_of
from corank.losses import Loss, distance, read_part
from corank.transfer import sent

__all__ = ["Teacher", "mean_loss", "outputs_of"]

_REMEMBERED_BYTES = 1 << 28
_BATCH = 64


def outputs_of(model: nn.Module, batches: Sequence[Any]) -> list[Any]:
    """What the model gives for each batch, without gradients."""
    device = device_of(model)
    with torch.no_grad():
        return [run(model, batch, device) for batch in batches]


def mean_loss(
    model: nn.Module,
    batches: Sequence[Any],
    references: Sequence[Any],
    loss: Loss,
    device: torch.device | None = None,
) -> float:
    """The loss against the reference outputs of the same batches, padding left out, mean over samples.

    ``device`` is where to run; None: where the model is.
    """
    device, total, count = device_of(model) if device is None else device, 0.0, 0
    with torch.no_grad():
        for batch, reference in zip(batches, references, strict=True):
            size = len(tree_leaves(batch)[0])
            total += float(distance(loss, run(model, batch, device), reference, batch)) * size
            count += size
    return total / count


class Teacher:
    """The float model's outputs for draws of samples.

    Args:
        model: the float network; it must not change while it is asked.
        samples: that are drawn from.
        loss: what it reads of an output is kept; see :func:`corank.losses.read_part`.
    """

    def __init__(self, model: nn.Module, samples: Samples, loss: Loss) -> None:
        self._model, self._device, self._loss = model, device_of(model), loss
        self._outputs = self._remembered(samples) if samples.stacked else None

    def __call__(self, draw: Tensor, load: Callable[[Tensor], Any]) -> Any:
        """The outputs of a draw ``(n,)`` of sample indices; ``load`` gives its batch where nothing is remembered."""
        if self._outputs is not None:
            return tree_map(lambda leaf: leaf[sent(draw, leaf.device)], self._outputs)
        with torch.no_grad():
            return run(self._model, load(draw), self._device)

    def _remembered(self, samples: Samples) -> Any:
        """The outputs of all samples, or None where they are too large or not one for each sample."""
        kept: list[Any] = []
        size = 0
        with torch.no_grad():
            for batch in samples.rebatched(_BATCH).batches:
                output = read_part(run(self._model, batch, self._device), self._loss)
                count, leaves = len(tree_leaves(batch)[0]), tree_leaves(output)
                if any(not isinstance(leaf, Tensor) or leaf.dim() == 0 or len(leaf) != count for leaf in leaves):
                    return None
                size += sum(leaf.numel() * leaf.element_size() for leaf in leaves)
                if size > _REMEMBERED_BYTES:
                    return None
                kept.append(output)
        return tree_map(lambda *leaves: torch.cat(leaves), *kept) if len(kept) > 1 else kept[0]
