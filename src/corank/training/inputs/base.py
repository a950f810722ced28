"""How a layer's inputs train while they are low-bit: what every way of it owes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Self, cast

from torch import Tensor, nn

from corank.layers import InputQuantizer

__all__ = ["InputStart", "InputTraining", "TrainableInputs"]


@dataclass(frozen=True)
class InputStart:
    """What the training of one layer's inputs starts from.

    Attributes:
        quantizer: fitted to the inputs of calibration samples, of the width that is trained.
        mean_size: mean magnitude of those inputs.
        axis: of the inputs' channels; None: 1 of those with four axes or more, as of images, else the last.
    """

    quantizer: InputQuantizer
    mean_size: float
    axis: int | None = None


class TrainableInputs(nn.Module, ABC):
    """The running form: rounds what a layer is fed, in training and evaluation alike. Its parameters train as steps."""

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """The inputs, of any shape, rounded; differentiable in them and in what trains."""

    @abstractmethod
    def quantizer(self) -> InputQuantizer:
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
