"""Whether a refined network is nearer to the float one."""

from __future__ import annotations

import torch
from torch import nn

from corank.calibration import Context, augmentation_for, mean_loss, outputs_of
from corank.calibration.augment import flip_and_shift
from corank.refine.refinement import Refinement

__all__ = ["Judge"]

_JUDGED = 512  # samples that decide whether the refined model is kept


class Judge:
    """Mean distance from the float model on the first samples: as they are, and flipped and shifted as the steps are.

    The codes were fitted to the samples as they are, what is refined was not: only both together are fair to both.
    """

    def __init__(self, teacher: nn.Module, how: Refinement, context: Context) -> None:
        self._loss = context.loss
        plain = list(context.samples.take(_JUDGED).batches)
        self._sets = [plain]
        if all(augmentation_for(how.augmentation, batch) != "none" for batch in plain):
            views = torch.Generator().manual_seed(context.seed)
            self._sets.append([flip_and_shift(batch, views) for batch in plain])
        self._references = [outputs_of(teacher, batches) for batches in self._sets]

    def __call__(self, model: nn.Module) -> tuple[float, float]:
        """The distance on the samples as they are, and the one that decides: the mean of both."""
        pairs = zip(self._sets, self._references, strict=True)
        found = [mean_loss(model, batches, references, self._loss) for batches, references in pairs]
        return found[0], sum(found) / len(found)
