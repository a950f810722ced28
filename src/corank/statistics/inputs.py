"""A sample of a layer's inputs, single numbers, for the range of their quantizer."""

from __future__ import annotations

import torch
from torch import Tensor

from corank.processes import all_reduce

__all__ = ["InputValues"]

_DRAWN = 1 << 17  # values of a layer in all


class InputValues:
    """About 131,000 inputs of one layer, drawn evenly from all batches, and the least and largest of all.

    Args:
        batches: how many there are, over all processes.
        device: of the inputs.
    """

    def __init__(self, batches: int, device: torch.device | str = "cpu") -> None:
        # A row for each batch: each process fills those of its own, a sum puts them together, and the sample is the
        # same however many processes there are.
        self._values = torch.zeros(batches, max(1, _DRAWN // batches), dtype=torch.float32, device=device)
        self._ends = torch.zeros(batches, 2, dtype=torch.float32, device=device)
        self._calls = torch.zeros(batches, dtype=torch.float32, device=device)

    def update(self, batch: int, inputs: Tensor, generator: torch.Generator) -> None:
        """Takes one batch's inputs; of a second call on the same batch (a shared layer) only the ends."""
        flat = inputs.detach().reshape(-1).float()
        if not len(flat):
            return
        ends = torch.stack([flat.min(), flat.max()])
        # A second draw would write over the first; one a batch, and all batches count alike.
        if not bool(self._calls[batch]):
            # Drawn on the CPU: the same places wherever the inputs lie.
            drawn = torch.randint(flat.numel(), (self._values.shape[1],), generator=generator)
            self._values[batch], self._ends[batch] = flat[drawn.to(flat.device)], ends
        self._ends[batch, 0] = torch.minimum(self._ends[batch, 0], ends[0])
        self._ends[batch, 1] = torch.maximum(self._ends[batch, 1], ends[1])
        self._calls[batch] = 1

    def reduce(self) -> None:
        """Puts together what the processes saw; see :mod:`corank.processes`."""
        all_reduce([self._values, self._ends, self._calls])

    @property
    def values(self) -> Tensor:
        """The sample, flat float32."""
        # Batches on which the layer was not called are rows of zeros that nothing was fed.
        return self._values[self._calls > 0].reshape(-1)

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the largest input; zeros where the layer was never called."""
        seen = self._ends[self._calls > 0]
        return (float(seen[:, 0].min()), float(seen[:, 1].max())) if len(seen) else (0.0, 0.0)
