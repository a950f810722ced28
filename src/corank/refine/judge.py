"""Whether a refined network is nearer to the float one."""

from __future__ import annotations

import torch
from torch import nn

from corank.calibration import Context, augmentation_for, mean_loss, outputs_of
from corank.calibration.augment import flip_and_shift
from corank.processes import from_main
from corank.refine.held_back import MOST_JUDGED, chosen, held_back

__all__ = ["Judge"]


class Judge:
    """Mean distance from the float model on samples held back: as they are, and flipped and shifted as the steps are.

    The codes were fitted to the samples as they are, what is refined was not: only both together are fair to both.
    Where none can be spared, up to 512 of all samples judge.

    Attributes:
        held_back: samples that judge and are not trained on.
    """

    def __init__(self, teacher: nn.Module, share: float, augmentation: str, context: Context) -> None:
        self._loss = context.loss
        samples, places = context.samples, held_back(context.samples, share, context.seed)
        judging = chosen(samples, places) if len(places) else samples.take(MOST_JUDGED)
        self.held_back = len(judging) if len(places) else 0
        plain = list(judging.batches)
        self._sets = [plain]
        if all(augmentation_for(augmentation, batch) != "none" for batch in plain):
            views = torch.Generator().manual_seed(context.seed)
            self._sets.append([flip_and_shift(batch, views) for batch in plain])
        self._references = [outputs_of(teacher, batches) for batches in self._sets]

    def __call__(self, model: nn.Module) -> tuple[float, float]:
        """The distance on the samples as they are, and the mean of both, which decides; the same in every process."""
        pairs = zip(self._sets, self._references, strict=True)
        found = [mean_loss(model, batches, references, self._loss) for batches, references in pairs]
        return from_main(lambda: (found[0], sum(found) / len(found)))
