"""How a weight trains while its codes are low-bit: what every way of it owes. ``R`` rows, ``C`` columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from corank.codecs import Codec
from corank.coded_weight import CodedWeight
from corank.matrix import Geometry

__all__ = ["STARTS", "TrainableWeight", "WeightStart", "WeightTraining"]

STARTS = ("codes", "float", "scratch")


@dataclass(frozen=True)
class WeightStart:
    """What the training of one weight starts from.

    Attributes:
        weight: ``(R, C)`` float32, of the float network; of fresh numbers where the start is "scratch".
        coded: as ``quantize`` codes it where the start is "codes"; None otherwise.
        seed: of draws, one for each layer.
        fresh: whether the weight holds fresh numbers, for ways that draw something else from scratch.
        geometry: of the layer; None where that is not known.
    """

    weight: Tensor
    coded: CodedWeight | None = None
    seed: int = 0
    fresh: bool = False
    geometry: Geometry | None = None


class TrainableWeight(nn.Module, ABC):
    """The running form: from a float weight to the weight that the layer computes with.

    The float weight is a parameter of the layer and trains unless :attr:`trains_weight` is false. Parameters of this
    module train, too: as steps (at the recipe's rate for steps, without decay) unless they are named in
    :attr:`latents`, which train as weights do. Where :attr:`forgets` is true the backward pass runs :meth:`forward`
    again, for forms whose graph would hold copies of the weight; it draws nothing.
    """

    trains_weight: ClassVar[bool] = True
    latents: ClassVar[tuple[str, ...]] = ()
    forgets: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.rounds = True
        """Whether the layer computes with :meth:`forward`; else with its float weight as it is."""

    @property
    @abstractmethod
    def codec(self) -> Codec | None:
        """Of what :meth:`coded` gives; None where :meth:`folded` ships instead."""

    @abstractmethod
    def forward(self, weight: Tensor) -> Tensor:
        """The weight ``(R, C)`` of the layer, differentiable; in evaluation mode what :meth:`coded` decodes to, bit for
        bit."""

    @abstractmethod
    def coded(self, weight: Tensor) -> CodedWeight:
        """What ships. Its scales may be float32: they are rounded once norms are folded."""

    def folded(self, weight: Tensor) -> Tensor:
        """The float weight ``(R, C)`` that ships where nothing is coded."""
        return self(weight).detach()

    def after_step(self, weight: Tensor, step: int) -> None:
        """Called without gradients after step ``step``, from 0."""
        return None


@dataclass(frozen=True)
class WeightTraining(ABC):
    """The frozen setting: numbers only; JSON both ways by :data:`corank.training.weights.WEIGHTS`."""

    starts: ClassVar[tuple[str, ...]] = ("codes", "float")

    @property
    @abstractmethod
    def stored(self) -> Codec | None:
        """The codec of the file; None where a float weight ships."""

    @abstractmethod
    def start(self, given: WeightStart) -> tuple[TrainableWeight, Tensor]:
        """The running form, and the float weight ``(R, C)`` that it starts from: it then gives what ``given.coded``
        decodes to, where there is one."""

    def with_codec(self, codec: Codec) -> Self:
        """The same way with another codec, for layers that a pattern names.

        Raises:
            ConfigError: for a codec that cannot train so.
        """
        return replace(cast(Any, self), codec=codec)


def straight_through(value: Tensor, weight: Tensor) -> Tensor:
    """``value`` forward; backward the identity of ``weight``."""
    if not (torch.is_grad_enabled() and weight.requires_grad):
        return value
    # value exactly: weight + (value - weight) would round
    return _Straight.apply(weight, value)


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return grad_outputs[0], None
