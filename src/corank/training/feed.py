"""What the steps of a training are fed with: a part of a batch, augmented, and the float network's outputs for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map

from corank.calibration.augment import augmented
from corank.calibration.batches import Batches
from corank.errors import ConfigError
from corank.processes import number_of_processes, own_part
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
        size: samples of a batch that pass at once, at most; 0 for all of a process's share.

    Raises:
        ConfigError: where a batch has fewer samples than there are processes.
    """

    batches: Batches
    teacher: TeacherOutputs | None
    objective: Objective
    augment: str = "none"
    size: int = 0

    def __post_init__(self) -> None:
        steps, processes = 1 if self.batches.stacked else self.batches.steps_an_epoch, number_of_processes()
        fewest = min(map(self.batches.count, range(steps))) if processes > 1 else 1
        if fewest < processes:
            raise ConfigError(
                f"a batch of {fewest} samples cannot be shared by {processes} processes; give larger ones"
            )

    def parts(self, step: int) -> Iterator[Part]:
        """This process's share of a step's batch, part by part, in float32 where it is floating.

        As many parts in every process, since norms that adapt wait for those of the others, and a sample in each.
        """
        count, processes = self.batches.count(step), number_of_processes()
        first, own = own_part(count)
        most = -(-count // processes)
        passes = min(-(-most // (self.size or most)), count // processes)
        for place in range(passes):
            start, stop = first + own * place // passes, first + own * (place + 1) // passes
            inputs, labels = self.batches.part(step, start, stop - start)
            inputs = augmented(self.augment, inputs, self.batches.step_seed(step), start, count)
            inputs = tree_map(lambda leaf: leaf.float() if leaf.is_floating_point() else leaf, inputs)
            yield Part(inputs, labels, start, (stop - start) / count)
