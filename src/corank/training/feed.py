"""What the steps of a training are fed with: a part of a batch, augmented, and the float network's outputs for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from corank.calibration.augment import augmented
from corank.errors import ConfigError
from corank.processes import number_of_processes, own_part
from corank.training.state import TrainingState

__all__ = ["Feed", "Part", "Place", "Reference", "Samples", "StepBatches"]


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


Samples = tuple[Any, Tensor | None]  # inputs and labels


class Place(NamedTuple):
    """``length`` samples of a step's batch from the ``start``-th on."""

    step: int
    start: int
    length: int


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
        workers: threads that read the parts of steps to come while one computes, see
            :func:`~corank.training.ahead.reading_ahead`; 0 reads each as it is needed.
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
    workers: int = 0

    def __post_init__(self) -> None:
        processes = number_of_processes()
        fewest = self.batches.smallest if self.even and processes > 1 else processes
        if fewest < processes:
            raise ConfigError(
                f"a batch of {fewest} samples cannot be shared by {processes} processes; give larger ones"
            )

    def places(self, step: int) -> list[Place]:
        """This process's share of a step's batch, part by part; as many in every process that has a sample."""
        count, processes = self.batches.count(step), number_of_processes()
        first, own = own_part(count)
        most = -(-count // processes)
        passes = min(-(-most // (self.size or most)), max(1, count // processes)) if own else 0
        cuts = [first + own * place // max(1, passes) for place in range(passes + 1)]
        return [Place(step, start, stop - start) for start, stop in pairwise(cuts)]

    def read(self, place: Place) -> Samples:
        """Inputs and labels of a part as the batches give them."""
        return self.batches.part(place.step, place.start, place.length)

    def parts(self, step: int, read: Callable[[Place], Samples] | None = None) -> Iterator[Part]:
        """The parts of a step, ready for the network.

        Args:
            step: its number.
            read: gives what :meth:`read` would, such as what was read ahead.
        """
        count = self.batches.count(step)
        for place in self.places(step):
            inputs, labels = (read or self.read)(place)
            inputs = augmented(self.augment, inputs, self.batches.step_seed(step), place.start, count)
            if self.dtype is not None:
                inputs = tree_map(lambda leaf: leaf.to(self.dtype) if leaf.is_floating_point() else leaf, inputs)
            yield Part(inputs, labels, place.start, place.length / count)
