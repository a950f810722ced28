"""What the steps of a refinement read: calibration samples, shuffled."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from corank.calibration import Samples

__all__ = ["Draws"]


class Draws:
    """The batches of a refinement, in the order that one generator shuffles them in; asked for from the first on.

    Args:
        samples: to draw from.
        size: samples a batch; of token sequences, as many as hold ``64 * size`` tokens.
        seed: of the order and of augmentations.
    """

    def __init__(self, samples: Samples, size: int, seed: int) -> None:
        self._draws = samples.draws(min(size, len(samples)), torch.Generator().manual_seed(seed))
        self._samples, self._load, self._seed = samples, samples.loader(), seed
        self._read, self._batch = 0, None

    @property
    def smallest(self) -> int:
        """Samples of the smallest batch, over all processes."""
        return self.count(0) if self._samples.stacked else min(map(_count, self._samples.batches))

    def count(self, step: int) -> int:
        """Samples of a step's batch, over all processes."""
        return _count(self._whole(step))

    def part(self, step: int, start: int, count: int) -> tuple[Any, Tensor | None]:
        """Inputs of ``count`` samples of a step's batch from the ``start``-th on; there are no labels."""
        return tree_map(lambda leaf: leaf[start : start + count], self._whole(step)), None

    def step_seed(self, step: int) -> int:
        """The seed of a step's augmentation."""
        return (self._seed << 20) + step

    def _whole(self, step: int) -> Any:
        while self._read <= step:  # those of steps before are drawn again where a run goes on
            draw = next(self._draws)
            self._read += 1
            if self._read > step:
                self._batch = self._load(draw)
        return self._batch


def _count(batch: Any) -> int:
    return len(tree_leaves(batch)[0])
