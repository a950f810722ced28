"""One network with every kind of layer, coded once, shared by the tests of exports."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.adapters import code_factors, decompose
from corank.codecs import Codec
from corank.coded_weight import CodedWeight
from corank.layers import CodedLayer, CodedLayerState, coded_class


class EveryKind(nn.Module):
    """A grouped, depthwise, transposed, 1-D, 3-D and shared convolution, linear layers of vectors and of tokens."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Conv2d(4, 4, 3, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), shared, nn.ReLU(), shared,
            nn.ConvTranspose2d(4, 4, 2, stride=2, groups=2),
            nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect", groups=4),
        )  # fmt: skip
        self.cube = nn.Conv3d(1, 2, 3, padding="same")
        self.line = nn.Conv1d(4, 8, 3, groups=4, dilation=2)
        self.grow = nn.ConvTranspose1d(8, 8, 3, stride=2, padding=1, output_padding=1)
        self.tokens = nn.Linear(12, 5)
        self.head = nn.Linear(40, 3)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(N, 3, 9, 9)`` to ``(N, 3)``."""
        x = self.cube(self.body(images)[:, None]).mean(1)
        x = self.grow(self.line(x.flatten(2)))[..., :12]
        return self.head(self.tokens(x).flatten(1))


@pytest.fixture(scope="session")
def images() -> Tensor:
    """Sixteen inputs of :class:`EveryKind`."""
    return torch.randn(16, 3, 9, 9, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="session")
def every_kind() -> nn.Module:
    """The float network, with a norm that does something."""
    torch.manual_seed(5)
    network = EveryKind().eval()
    norm = network.body[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    norm.running_mean.normal_()
    return network


@pytest.fixture(scope="session")
def coded(every_kind: nn.Module, images: Tensor) -> nn.Module:
    """The network at 3 bits with adapters."""
    return corank.quantize(every_kind, images, bits=3, budget=0.4, search="greedy")


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Conv2d(6, 8, 3),
    "grouped": lambda: nn.Conv2d(6, 8, 3, groups=2),
    "depthwise": lambda: nn.Conv1d(8, 8, 5, groups=8),
    "transposed": lambda: nn.ConvTranspose2d(6, 8, 3),
    "transposed grouped": lambda: nn.ConvTranspose3d(6, 8, (1, 2, 3), groups=2),
    "linear": lambda: nn.Linear(35, 6),
}


@pytest.fixture(scope="session")
def coded_layer() -> Callable[[nn.Module, Codec, int], CodedLayer]:
    """Codes a layer alone: the nearest values, and an adapter of a rank (none for a depthwise layer)."""
    return _coded_layer


@pytest.fixture(scope="session")
def coded_layers_of() -> Callable[[Codec, int], list[CodedLayer]]:
    """A layer of every kind, coded by a codec, with adapters of a rank where the layer can have one."""
    return lambda codec, rank: [_coded_layer(make(), codec, rank) for make in LAYERS.values()]


def _coded_layer(layer: nn.Module, codec: Codec, rank: int) -> CodedLayer:
    weight, bias = cast(Tensor, layer.weight).detach(), cast(Tensor, layer.bias).detach()
    coded = coded_class(layer)(layer, codec, rank if weight.shape[1] > 1 else 0)
    matrix = coded.geometry.to_matrix(weight)
    codebook = codec.fit(matrix.flatten(0, 1))
    one = CodedWeight(codebook.nearest(matrix.flatten(0, 1)), codebook)
    adapter = None
    if coded.rank:
        residual = matrix - one.decode().reshape(matrix.shape)
        adapter = code_factors(decompose(residual, "svd", {}).truncate(rank), 8)
    coded.fill(CodedLayerState(codec, one, adapter, 8), bias)
    return coded
