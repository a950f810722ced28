"""Layers of which parts can be taken: what a supernet (OQAT, arXiv 2010.04354) is built from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.codecs import ScalarCodebook, Uniform
from corank.coded_weight import CodedWeight
from corank.coding.layer import LayerResult
from corank.errors import ConfigError
from corank.layers import CodedLayerState
from corank.training.norms import NormAfter, scaled_rows
from corank.training.shared_step import SharedStepInputs, SharedStepWeight

__all__ = ["ConvNorm", "ConvShape", "Elastic", "ElasticConv", "ElasticNorm", "Steps"]


class Elastic(nn.Module, ABC):
    """A module with choices, such as a block's kernel or a stage's depth. Modules of one's own may have any."""

    @property
    @abstractmethod
    def choices(self) -> dict[str, tuple[int, ...]]:
        """Name of each choice to what there is, ascending."""

    @abstractmethod
    def choose(self, chosen: Mapping[str, int]) -> None:
        """Computes with these parts from now on; every choice is given."""

    @property
    def resting(self) -> tuple[nn.Module, ...]:
        """Modules inside that do not run, as chosen."""
        return ()

    @abstractmethod
    def plain(self) -> nn.Module:
        """The module as chosen, without weights of its own: what stands inside goes by the same names, and an
        :class:`ElasticConv` is a :class:`ConvNorm`."""


@dataclass(frozen=True)
class ConvShape:
    """A convolution, what follows it, and how it is coded.

    Attributes:
        inputs, outputs: channels; equal where it is depthwise.
        kernel: height and width, odd; padding keeps the size of images.
        stride: of both.
        depthwise: one filter a channel.
        norm: whether a batch norm follows, instead of a bias.
        relu: whether a ReLU follows.
        edge: the first or last layer of a network: 8 bits a weight and float inputs.
    """

    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    norm: bool = True
    relu: bool = True
    edge: bool = False

    @property
    def columns(self) -> int:
        """Input channels that each output reads."""
        return 1 if self.depthwise else self.inputs

    @property
    def name(self) -> str:
        """What tells parts of one layer apart."""
        return f"{self.inputs}-{self.outputs}-{self.kernel}"


class ConvNorm(nn.Module):
    """The ordinary counterpart of :class:`ElasticConv`: ``(N, inputs, H, W)`` to ``(N, outputs, H', W')``."""

    def __init__(self, shape: ConvShape) -> None:
        super().__init__()
        groups = shape.inputs if shape.depthwise else 1
        self.conv = nn.Conv2d(shape.inputs, shape.outputs, shape.kernel, shape.stride, padding=shape.kernel // 2,
                              groups=groups, bias=not shape.norm)  # fmt: skip
        self.norm = nn.BatchNorm2d(shape.outputs) if shape.norm else nn.Identity()
        self.relu = shape.relu

    def forward(self, images: Tensor) -> Tensor:
        images = self.norm(self.conv(images))
        return torch.relu(images) if self.relu else images


class ElasticNorm(nn.BatchNorm2d):
    """A batch norm of which the first channels are taken, as many as the images have."""

    def forward(self, input: Tensor) -> Tensor:
        count = input.shape[1]
        if count == self.num_features:
            return super().forward(input)
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        share = 0.0 if self.momentum is None else self.momentum
        if self.training:
            self.num_batches_tracked.add_(1)
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else share
        mean, variance = self.running_mean[:count], self.running_var[:count]
        return F.batch_norm(
            input, mean, variance, self.weight[:count], self.bias[:count], self.training, share, self.eps
        )


class Steps(nn.Module):
    """What rounds the weight and the inputs of a layer, or of one part of it."""

    def __init__(self, weight: SharedStepWeight, inputs: SharedStepInputs | None) -> None:
        super().__init__()
        self.weight, self.inputs = weight, inputs

    def inherited(self, edge: bool) -> Steps:
        """With a bit less and steps twice as long; those of an edge stay as they are."""
        if edge:
            return self
        return Steps(self.weight.inherited(), None if self.inputs is None else self.inputs.inherited())


class ElasticConv(nn.Module):
    """A convolution with its norm and ReLU, of which channels and a kernel are taken.

    A smaller kernel is the centre of the next larger one times a learned matrix, which begins as the identity. Steps
    are applied to the part that was taken. In evaluation mode (of the layer and its norm) it computes what ships, bit
    for bit: the norm folded into a scale a row and a bias, both of fp16.

    Args:
        shape: of the largest part.
        kernels: that can be taken, ascending, odd; the last is the shape's. None: that alone.

    Attributes:
        now: the part that is taken.
        steps: by name: "shared", or one for each part (:attr:`ConvShape.name`); empty where it trains in float.
    """

    def __init__(self, shape: ConvShape, kernels: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.shape = self.now = shape
        self.kernels = (shape.kernel,) if kernels is None else kernels
        if list(self.kernels) != sorted({one for one in self.kernels if one % 2}) or self.kernels[-1] != shape.kernel:
            raise ConfigError(f"kernels {self.kernels} of a layer of {shape.kernel}: odd ones, ascending, e.g. (3, 5)")
        plain = ConvNorm(shape)
        self.weight = plain.conv.weight
        self.bias = plain.conv.bias
        self.norm = ElasticNorm(shape.outputs) if shape.norm else None
        self.crops = nn.ParameterDict(
            {str(one): torch.eye(one * one, dtype=torch.float32) for one in self.kernels[:-1]}
        )
        self.steps = nn.ModuleDict()

    def take(self, inputs: int, outputs: int, kernel: int) -> None:
        """Computes with this part from now on."""
        self.now = replace(self.shape, inputs=inputs, outputs=outputs, kernel=kernel)

    def taken(self) -> Tensor:
        """The float weight of the part, ``(outputs, columns, kernel, kernel)``."""
        size, weight = self.shape.kernel, self.weight[: self.now.outputs, : self.now.columns]
        for kernel in reversed(self.kernels[:-1]):
            if size == self.now.kernel:
                break
            edge = (size - kernel) // 2
            centre = weight[..., edge : edge + kernel, edge : edge + kernel].flatten(2)
            weight, size = (centre @ self.crops[str(kernel)]).unflatten(2, (kernel, kernel)), kernel
        return weight

    @property
    def rounding(self) -> Steps | None:
        """The steps of this part."""
        found = (
            self.steps[self.now.name] if self.now.name in self.steps else self.steps["shared"] if self.steps else None
        )
        assert found is None or isinstance(found, Steps)
        return found

    def forward(self, images: Tensor) -> Tensor:
        learns = self.training or (self.norm is not None and self.norm.training)
        steps, weight, bias = self.rounding, self.taken(), self.bias
        if steps is not None and not learns:
            return self._shipped(images)
        if steps is not None:
            weight = steps.weight(weight.flatten(1)).view_as(weight)
            images = images if steps.inputs is None else steps.inputs(images)
        images = self._convolved(images, weight, bias)
        return self._after(images if self.norm is None else self.norm(images))

    @torch.no_grad()
    def result(self) -> LayerResult:
        """The part, coded as it ships: its norm folded, scales, bias and step of fp16. It must have steps."""
        steps = self.rounding
        assert steps is not None
        coded, bits = steps.weight.coded(self.taken().flatten(1)), steps.weight.bits
        book, bias, codec = coded.codebook, self.bias, Uniform(bits, symmetric=True, group=-1, range="mse")
        assert isinstance(book, ScalarCodebook)
        if self.norm is not None:
            norm, count = NormAfter("", self.norm, self), self.now.outputs
            codec, bias = replace(codec, group=0), norm.offset[:count]
            book = scaled_rows(book, norm.gain[:count])
            assert isinstance(book, ScalarCodebook)
            book = replace(book, offset=torch.zeros_like(book.scale), group_size=coded.codes.shape[1])
        book = replace(book, scale=_as_fp16(book.scale), group_size=coded.codes.shape[1])
        assert bias is not None
        inputs = None if steps.inputs is None else steps.inputs.quantizer()
        code = CodedLayerState(codec, CodedWeight(coded.codes, book), None, 8, inputs)
        return LayerResult(code, _as_fp16(bias.detach()), float("nan"), coded.codes.new_zeros(0))

    def float_state(self) -> dict[str, Tensor]:
        """The part's numbers as :class:`ConvNorm` names them."""
        found = {"conv.weight": self.taken().detach()}
        if self.norm is None:
            assert self.bias is not None
            return {**found, "conv.bias": self.bias.detach()}
        state, count = self.norm.state_dict(), self.now.outputs
        return found | {f"norm.{name}": one[:count] if one.dim() else one for name, one in state.items()}

    @torch.no_grad()
    def turn(self) -> None:
        """Makes the norm's gains positive, which changes no output of a float network: a row of a negative one changes
        its sign, and so does its mean."""
        if self.norm is None or self.norm.running_mean is None:
            return
        sign = torch.where(self.norm.weight < 0, -1.0, torch.ones_like(self.norm.weight))
        self.weight.mul_(sign[:, None, None, None])
        self.norm.running_mean.mul_(sign)
        self.norm.weight.mul_(sign)

    def _shipped(self, images: Tensor) -> Tensor:
        found = self.result()
        weight = found.code.weight.decode().reshape(self.now.outputs, self.now.columns, self.now.kernel, -1)
        images = images if found.code.inputs is None else found.code.inputs(images)
        return self._after(self._convolved(images, weight, found.bias))

    def _convolved(self, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        groups = self.now.inputs if self.now.depthwise else 1
        return F.conv2d(images, weight, bias, self.now.stride, self.now.kernel // 2, 1, groups)

    def _after(self, images: Tensor) -> Tensor:
        return torch.relu(images) if self.now.relu else images


def _as_fp16(value: Tensor) -> Tensor:
    return value.to(torch.float16).float()
