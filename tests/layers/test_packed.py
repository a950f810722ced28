"""Layers of signs by xor and popcount compute what coded layers of signs compute in float."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from corank.codecs import Binary, Codec, StatsQ
from corank.coded_weight import CodedWeight
from corank.layers import (
    BinaryInputs,
    CodedLayerState,
    CodedLinear,
    PackedConv2d,
    PackedLinear,
    coded_class,
    is_packable,
    packed_layer,
)
from corank.layers.coded import CodedLayer

LINEAR, CONV = nn.Linear(130, 70), nn.Conv2d(5, 9, 2, 2, bias=False)


def coded(layer: nn.Module, codec: Codec | None = None, shifts: int = 0, step: float = 0.5) -> CodedLayer:
    """Of the layer's own weight, its inputs signs."""
    codec = codec or Binary()
    torch.manual_seed(shifts)
    made = coded_class(layer)(layer, codec, inputs=1)
    made.keep_shifts(shifts)
    weight = made.geometry.to_matrix(layer.get_parameter("weight").detach()).flatten(0, 1)
    book = codec.fit(weight)
    axes = len(made.geometry.kernel)
    shift = torch.randn(shifts).half().float().reshape(-1, *(1,) * axes) if shifts else None
    inputs = BinaryInputs(torch.tensor(step), shift)
    bias = layer._parameters["bias"]
    made.fill(CodedLayerState(codec, CodedWeight(book.nearest(weight), book), None, 8, inputs), bias)
    return made.eval()


def close(one: Tensor, other: Tensor) -> bool:
    largest = float(other.abs().max()) if other.numel() else 0.0
    return torch.allclose(one, other, rtol=1e-5, atol=1e-5 * largest)


@pytest.mark.parametrize("shifts", [0, 1, 130])
def test_a_linear_layer(shifts: int) -> None:
    layer = coded(LINEAR, shifts=shifts)
    packed = packed_layer(layer)
    assert is_packable(layer) and type(packed) is PackedLinear
    for size in ((130,), (1, 130), (4, 130), (2, 3, 130), (0, 130)):
        inputs = torch.randn(size)
        assert packed(inputs).shape == layer(inputs).shape and close(packed(inputs), layer(inputs))
    # but for scale and bias, whole numbers
    whole = (packed(torch.randn(4, 130)) - LINEAR.bias) / packed.factor
    assert torch.allclose(whole, whole.round(), atol=1e-3) and bool((whole.round().abs() <= 130).all())


@pytest.mark.parametrize("shifts", [0, 1, 5])
def test_a_convolution_without_padding(shifts: int) -> None:
    for layer in (CONV, nn.Conv2d(5, 9, (3, 2), (1, 2), dilation=(2, 1))):
        packed = packed_layer(coded(layer, shifts=shifts))
        assert type(packed) is PackedConv2d
        for size in ((2, 5, 8, 8), (1, 5, 7, 9)):
            inputs = torch.randn(size)
            assert close(packed(inputs), coded(layer, shifts=shifts)(inputs))


def test_one_bit_a_weight_is_held() -> None:
    packed = packed_layer(coded(nn.Linear(128, 64)))
    assert packed.words.nbytes == 128 * 64 // 8
    again = pickle.loads(pickle.dumps(copy.deepcopy(packed)))
    inputs = torch.randn(3, 128)
    assert torch.equal(again(inputs), packed(inputs))
    assert packed.half()(inputs.half()).dtype == torch.float16


def test_only_signs_are_packed() -> None:
    assert not is_packable(LINEAR)
    for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1, groups=2), nn.Conv1d(4, 4, 1)):
        assert not is_packable(coded(layer))
    assert not is_packable(coded(LINEAR, StatsQ(2)))
    assert not is_packable(coded(LINEAR, Binary(group=65)))  # two scales a row
    assert is_packable(coded(nn.Conv2d(4, 4, 1)))
    assert not is_packable(CodedLinear(LINEAR, Binary()))
    zeros = nn.Linear(7, 3)
    nn.init.zeros_(zeros.weight)
    packed = packed_layer(coded(zeros))
    assert close(packed(torch.randn(2, 7)), coded(zeros)(torch.randn(2, 7)))
