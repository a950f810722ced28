"""Packed layers compute what coded layers compute, and hold no float weight."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from corank.adapters import decompose
from corank.adapters.factor_codes import code_factors
from corank.codecs import Codec, ICQuant, KMeans, RateUniform, Ternary, Uniform
from corank.coded_weight import CodedWeight
from corank.errors import CorankWarning, ModelError
from corank.layers import (
    CodedLayerState,
    CodesEmbedding,
    CodesLayer,
    CodesLinear,
    InputQuantizer,
    coded_class,
    is_packed,
    pack_layers,
)
from corank.layers.coded import CodedLayer
from corank.matrix import Geometry

LINEAR = nn.Linear(96, 40)


def coded(layer: nn.Module, codec: Codec, rank: int = 0, inputs: InputQuantizer | None = None) -> CodedLayer:
    """A layer's own weight at the nearest values."""
    weight = Geometry.of(layer).to_matrix(layer.get_parameter("weight").detach()).flatten(0, 1)
    book = codec.fit(weight)
    codes = CodedWeight(book.nearest(weight), book)
    codec = codec.with_measured_size(book)
    adapter = None
    if rank:
        adapter = code_factors(decompose((weight - codes.decode())[None], "svd", ()).truncate(rank), 8)
    made = coded_class(layer)(layer, codec, rank, 8, inputs.bits if inputs else None)
    made.keep_shifts(inputs.shifts if inputs else 0)
    made.fill(CodedLayerState(codec, codes, adapter, 8, inputs), layer._parameters.get("bias"))
    return made.eval()


def packed(layer: CodedLayer) -> CodesLayer:
    holder = nn.Sequential(copy.deepcopy(layer))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pack_layers(holder) == 1 and is_packed(holder)
    made = holder[0]
    assert isinstance(made, CodesLayer)
    return made


def same(one: Tensor, other: Tensor, rounding: float = 1e-5) -> None:
    torch.testing.assert_close(one, other, rtol=rounding, atol=rounding * float(other.abs().max()))


CODECS = [
    Uniform(bits=4, symmetric=True),
    Uniform(bits=2),
    Uniform(bits=4, group=32),
    Uniform(bits=4, group=-1),
    KMeans(bits=4),
    Ternary(),
    RateUniform(bits=6, rate=2.0),
    ICQuant(bits=2, outliers=0.05),
]


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_a_linear_layer(codec: Codec) -> None:
    layer = coded(LINEAR, codec)
    made = packed(layer)
    assert type(made) is CodesLinear and torch.equal(made.weight, layer.weight)
    for size in ((96,), (1, 96), (5, 96), (2, 3, 96), (60, 96), (0, 96)):
        inputs = torch.randn(size)
        with torch.no_grad():
            found = made(inputs)
            assert found.shape == layer(inputs).shape
            if found.numel():
                same(found, layer(inputs))


def test_codes_take_the_fewest_bits_that_hold_them() -> None:
    narrow = packed(coded(LINEAR, RateUniform(bits=8, rate=1.5)))
    layer = coded(LINEAR, RateUniform(bits=8, rate=1.5))
    codes = layer.code().weight.codes
    assert narrow.packed.codes.bits == (int(codes.max()) - int(codes.min())).bit_length() < 8


def test_nothing_float_is_kept() -> None:
    wide = coded(nn.Linear(1024, 256, bias=False), Uniform(bits=4))
    kept = sum(one.numel() * one.element_size() for one in packed(wide).state_dict().values())
    assert kept < 1.02 * 1024 * 256 / 2 + 256 * 4 + 200


def test_an_adapter_is_two_thin_products() -> None:
    layer = coded(LINEAR, Uniform(bits=2), rank=5)
    made, inputs = packed(layer), torch.randn(3, 96)
    with torch.no_grad():
        same(made(inputs), layer(inputs))
    same(made.weight, layer.weight)
    assert not torch.allclose(made.weight, packed(coded(LINEAR, Uniform(bits=2))).weight)


def test_inputs_are_rounded_as_before() -> None:
    shift = torch.randn(96).half().float()
    rounder = InputQuantizer(4, torch.tensor(0.25), 7, shift)
    layer, inputs = coded(LINEAR, Uniform(bits=4), inputs=rounder), torch.randn(5, 96)
    made = packed(layer)
    with torch.no_grad():
        same(made(inputs), layer(inputs))
        assert not torch.allclose(made(inputs), packed(coded(LINEAR, Uniform(bits=4)))(inputs), atol=1e-2)
        same(copy.deepcopy(made).double().float()(inputs), layer(inputs))


def test_an_embedding() -> None:
    layer = coded(nn.Embedding(30, 24), Uniform(bits=4))
    made, ids = packed(layer), torch.tensor([[3, 29, 3], [0, 1, 2]])
    assert type(made) is CodesEmbedding and torch.equal(made(ids), layer(ids))
    assert made(ids[:0]).shape == (0, 3, 24)
    with pytest.raises(IndexError, match="the table has 30 rows"):
        made(torch.tensor([30]))


def test_copies_pickles_and_casts() -> None:
    layer = coded(LINEAR, Uniform(bits=4, group=32), rank=3)
    made, inputs = packed(layer), torch.randn(3, 96)
    with torch.no_grad():
        expected = made(inputs)
        for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            assert torch.equal(other(inputs), expected)
        assert torch.equal(copy.deepcopy(made).bfloat16().float().weight, made.weight)
        other = packed(coded(LINEAR, KMeans(bits=5)))
        plain = packed(coded(LINEAR, Uniform(bits=5, symmetric=True)))
        plain(inputs)
        plain.load_state_dict(other.state_dict(), strict=False)  # in the place of even levels
        assert plain.packed.codes.bits == other.packed.codes.bits and torch.equal(plain(inputs), other(inputs))
        fresh = packed(coded(nn.Linear(96, 40), Uniform(bits=4, group=32), rank=3))
        assert not torch.equal(fresh(inputs), expected)
        fresh.load_state_dict(made.state_dict())
        assert torch.equal(fresh(inputs), expected)
        half = copy.deepcopy(made).bfloat16()
        assert half.packed.codes.levels.dtype == torch.float32 and half.bias is not None
        assert half(inputs.bfloat16()).dtype == half.weight.dtype == half.bias.dtype == torch.bfloat16
        same(half(inputs.bfloat16()).float(), expected, 2e-2)


def test_a_gradient_of_inputs_is_that_of_the_coded_layer() -> None:
    layer = coded(LINEAR, Uniform(bits=4))
    made, grads = packed(layer), []
    for one in (made, layer):
        inputs = torch.linspace(-1, 1, 192).reshape(2, 96).requires_grad_()
        one(inputs).square().sum().backward()
        grads.append(inputs.grad)
    same(grads[0], grads[1])


def test_what_cannot_be_packed_is_said_and_left() -> None:
    made = nn.Sequential(coded(LINEAR, Uniform(bits=4, group=24)), coded(nn.Linear(40, 5), Uniform(bits=4)))
    inputs = torch.randn(2, 96)
    expected = made(inputs)
    with pytest.warns(CorankWarning, match="1 layers compose their weight, first '0': groups of 24 columns"):
        assert pack_layers(made) == 1
    same(made(inputs), expected)
    convolution = nn.Sequential(coded(nn.Conv2d(3, 4, 3), Uniform(bits=4)))
    assert pack_layers(convolution) == 0 and not is_packed(convolution)


def test_an_export_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = packed(coded(LINEAR, Uniform(bits=4)))
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    with pytest.raises(ModelError, match="export the model that was packed"):
        made(torch.randn(1, 96))


def test_small_layers_stay_where_they_are_to() -> None:
    made = nn.Sequential(coded(LINEAR, Uniform(bits=4)), coded(nn.Linear(40, 5), Uniform(bits=4)))
    assert pack_layers(made, least=96 * 40) == 1
    kinds: list[Any] = [isinstance(one, CodesLinear) for one in made]
    assert kinds == [True, False]
