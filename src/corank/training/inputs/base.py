"""How a layer's inputs train while they are low-bit: what every way of it owes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from corank.errors import ConfigError
from corank.layers import InputQuantizer, InputRounder
from corank.matrix import Geometry

__all__ = ["InputStart", "InputTraining", "SteppedInputs", "TrainableInputs"]


@dataclass(frozen=True)
class InputStart:
    """What the training of one layer's inputs starts from.

    Attributes:
        quantizer: fitted to the inputs of calibration samples, of the width that is trained.
        mean_size: mean magnitude of those inputs.
        geometry: of the layer, for what each of its channels has for itself; None where that is not known.
    """

    quantizer: InputRounder
    mean_size: float
    geometry: Geometry | None = None

    @property
    def codes(self) -> InputQuantizer:
        """The quantizer, for ways of training that need 2 bits or more.

        Raises:
            ConfigError: for one of 1 bit.
        """
        if not isinstance(self.quantizer, InputQuantizer):
            raise ConfigError("inputs of 1 bit are trained by SignInputs(); other ways need 2 to 8")
        return self.quantizer

    @property
    def shifts(self) -> tuple[int, ...]:
        """The shape of one number a channel, as it broadcasts over the inputs; of one number for all without a
        geometry."""
        if self.geometry is None:
            return (1,)
        return (self.geometry.channels, *(1 for _ in self.geometry.kernel))

    @property
    def axis(self) -> int | None:
        """Of the inputs' channels; None where that is not known: 1 of those with four axes or more, else the last."""
        return None if self.geometry is None else 1 if self.geometry.kernel else -1


class TrainableInputs(nn.Module, ABC):
    """The running form: rounds what a layer is fed, in training and evaluation alike. Its parameters train as steps."""

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """The inputs, of any shape, rounded; differentiable in them and in what trains."""

    @abstractmethod
    def quantizer(self) -> InputRounder:
        """What ships: gives the same values, once its step is rounded to fp16."""


class SteppedInputs(TrainableInputs):
    """Whole multiples of one step that trains: its start times ``exp`` of :attr:`growth`, and so positive; which code
    stands for zero stays."""

    def __init__(self, quantizer: InputQuantizer) -> None:
        super().__init__()
        self._quantizer = quantizer
        self.growth = nn.Parameter(torch.zeros_like(quantizer.step))
        self.register_buffer("step", quantizer.step.clone())

    def now(self) -> InputQuantizer:
        """The quantizer at this step, differentiable in what trains."""
        return replace(self._quantizer, step=self.get_buffer("step") * self.growth.exp())

    def quantizer(self) -> InputQuantizer:
        now = self.now()
        return replace(now, step=now.step.detach())


@dataclass(frozen=True)
class InputTraining(ABC):
    """The frozen setting: numbers only; JSON both ways by :data:`corank.training.inputs.INPUTS`.

    Attributes:
        bits: of the inputs.
    """

    bits: int = 8
    widths: ClassVar[range] = range(2, 9)

    def __post_init__(self) -> None:
        if type(self.bits) is not int or self.bits not in self.widths:
            name, few, many = type(self).__name__, self.widths[0], self.widths[-1]
            raise ConfigError(f"bits={self.bits!r}: of inputs, {few} to {many}, e.g. {name}({min(4, many)})")

    @abstractmethod
    def start(self, given: InputStart) -> TrainableInputs:
        """The running form."""

    def with_bits(self, bits: int) -> Self:
        """The same of another width."""
        return replace(cast(Any, self), bits=bits)
