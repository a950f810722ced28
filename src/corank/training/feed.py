"""What the steps of a training are fed with: a part of a batch, augmented, and the float network's outputs for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from corank.calibration.augment import augmented
from corank.errors import ConfigError
from corank.processes import number_of_processes, own_part
from corank.training.state import TrainingState

__all__ = ["Feed", "Part", "Reference", "StepBatches"]


class StepBatches(Protocol):
    """The batches of steps, each a function of its number, such as :class:`corank.calibration.Batches`."""

    @property
    def smallest(self) -> int:
        """Samples of the smallest batch, over all processes."""
        ...

    def count(self, step: int) -> int:
        """Samples of a step's batch, over all processes."""
        ...

    def part(self, step: int, start: int, count: int) -> tuple[Any, Tensor | None]:
        """Inputs, and labels or None, of ``count`` samples of a step's batch from the ``start``-th on."""
        ...

    def step_seed(self, step: int) -> int:
        """The seed of a step's augmentation."""
        ...


class Reference(Protocol):
    """The float network's outputs, such as :class:`~corank.training.teacher_cache.TeacherOutputs`."""

    @property
    def kept(self) -> str | None:
        """Where they are kept; None where each step's are computed."""
        ...

    def outputs(self, step: int, batch: Any, start: int = 0) -> Any:
        """Those for (a part of) a step's batch, of which the first is the ``start``-th, without gradients."""
        ...


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
        dtype: of inputs that are floating; None: as they are.
        even: whether every process has a sample in each of as many parts, as norms that adapt need: they wait for those
            of the others.

    Raises:
        ConfigError: where that is asked for, and a batch has fewer samples than there are processes.
    """

    batches: StepBatches
    teacher: Reference | None
    objective: Callable[[TrainingState], Tensor]
    augment: str = "none"
    size: int = 0
    dtype: torch.dtype | None = torch.float32
    even: bool = True

    def __post_init__(self) -> None:
        processes = number_of_processes()
        fewest = self.batches.smallest if self.even and processes > 1 else processes
        if fewest < processes:
            raise ConfigError(
                f"a batch of {fewest} samples cannot be shared by {processes} processes; give larger ones"
            )

    def parts(self, step: int) -> Iterator[Part]:
        """This process's share of a step's batch, part by part; as many in every process that has a sample."""
        count, processes = self.batches.count(step), number_of_processes()
        first, own = own_part(count)
        most = -(-count // processes)
        passes = min(-(-most // (self.size or most)), max(1, count // processes)) if own else 0
        for place in range(passes):
            start, stop = first + own * place // passes, first + own * (place + 1) // passes
            inputs, labels = self.batches.part(step, start, stop - start)
            inputs = augmented(self.augment, inputs, self.batches.step_seed(step), start, count)
            if self.dtype is not None:
                inputs = tree_map(lambda leaf: leaf.to(self.dtype) if leaf.is_floating_point() else leaf, inputs)
            yield Part(inputs, labels, start, (stop - start) / count)
