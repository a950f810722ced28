"""How a layer's inputs train while they are low-bit: what every way of it owes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Self, cast

from torch import Tensor, nn

from corank.errors import ConfigError
from corank.layers import InputQuantizer, InputRounder
from corank.matrix import Geometry

__all__ = ["InputStart", "InputTraining", "TrainableInputs"]


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


@dataclass(frozen=True)
class InputTraining(ABC):
    """The frozen setting: numbers only; JSON both ways by :data:`corank.training.inputs.INPUTS`.

    Attributes:
        bits: of the inputs.
    """

    bits: int = 8

    @abstractmethod
    def start(self, given: InputStart) -> TrainableInputs:
        """The running form."""

    def with_bits(self, bits: int) -> Self:
        """The same of another width."""
        return replace(cast(Any, self), bits=bits)
