"""What the steps of a training are fed with: a part of a batch, augmented, and the float network's outputs for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from corank.calibration.augment import augmentation_for, augmented
from corank.calibration.batches import Batches
from corank.processes import own_part
from corank.training.objective import Objective
from corank.training.teacher_cache import TeacherOutputs

__all__ = ["Feed", "Part"]


@dataclass(frozen=True)
class Part:
    """Samples of a step that pass at once.

    Attributes:
        inputs: as the network takes them.
        labels: theirs; None where there are none.
        start: the place of the first of them in the step's batch.
        share: of the step's samples, over all processes.
    """

    inputs: Any
    labels: Tensor | None
    start: int
    share: float


@dataclass(frozen=True)
class Feed:
    """Samples, float outputs and the loss of a training.

    Attributes:
        batches: of samples and labels.
        teacher: the float network's outputs; None where nothing is distilled.
        objective: what is minimised.
        augment: of images; "none" for other samples.
        size: samples of a batch that pass at once; 0 for all of a process's share.
    """

    batches: Batches
    teacher: TeacherOutputs | None
    objective: Objective
    augment: str = "none"
    size: int = 0

    def parts(self, step: int) -> Iterator[Part]:
        """This process's share of a step's batch, part by part, in float32 where it is floating."""
        count = self.batches.count(step)
        first, own = own_part(count)
        size = self.size or max(1, own)
        for start in range(first, first + own, size):
            inputs, labels = self.batches.part(step, start, min(size, first + own - start))
            name = augmentation_for(self.augment, inputs)
            inputs = augmented(name, inputs, self.batches.step_seed(step), start, count)
            inputs = tree_map(lambda leaf: leaf.float() if leaf.is_floating_point() else leaf, inputs)
            yield Part(inputs, labels, start, len(tree_leaves(inputs)[0]) / count)
