"""A coded layer: the outputs of a float layer with the composed weight, and no float weight of its own."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn

from corank.adapters import code_factors, decompose
from corank.codecs import Uniform
from corank.coded_weight import CodedWeight
from corank.errors import ModelError
from corank.layers import CodedLayer, CodedLayerState, InputQuantizer, LayerFormat, coded_class
from corank.matrix import Geometry
from corank.storage.bits import packed_bytes

THREE_BITS = Uniform(3)

CASES = {
    "linear": (nn.Linear(6, 5), (3, 6)),
    "conv1d": (nn.Conv1d(4, 6, 3, padding=1, groups=2), (2, 4, 9)),
    "conv2d": (nn.Conv2d(3, 5, 3, 2, padding=1, padding_mode="reflect"), (2, 3, 7, 6)),
    "conv2d same": (nn.Conv2d(3, 5, 3, padding="same", dilation=2, bias=False), (2, 3, 7, 6)),
    "conv3d": (nn.Conv3d(2, 3, 2, padding=1), (2, 2, 3, 4, 3)),
    "transposed 1d": (nn.ConvTranspose1d(4, 6, 3, 2, groups=2), (2, 4, 5)),
    "transposed 2d": (nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), (2, 4, 5, 4)),
    "transposed 3d": (nn.ConvTranspose3d(2, 3, 2, bias=False), (1, 2, 3, 3, 2)),
}


def code_of(layer: nn.Module, codec: Uniform, rank: int, adapter_bits: int = 8) -> CodedLayerState:
    weight = Geometry.of(layer).to_matrix(layer.get_parameter("weight").detach())
    codebook = codec.fit(weight.flatten(0, 1))
    coded = CodedWeight(codebook.nearest(weight.flatten(0, 1)), codebook)
    directions = decompose(weight - coded.decode().reshape(weight.shape), "svd", {}).truncate(rank)
    return CodedLayerState(codec, coded, code_factors(directions, adapter_bits) if rank else None, adapter_bits)


def coded(name: str, codec: Uniform = THREE_BITS, rank: int = 2) -> tuple[nn.Module, CodedLayerState, CodedLayer]:
    """The float layer with the composed weight, the code, and the coded layer."""
    layer = copy.deepcopy(CASES[name][0])
    code = code_of(layer, codec, rank)
    result = coded_class(layer)(layer, codec, rank, 8)
    result.fill(code, layer.bias)  # pyright: ignore
    layer.get_parameter("weight").data = Geometry.of(layer).from_matrix(code.compose())
    return layer, code, result


@pytest.fixture(params=CASES, name="name")
def _name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("codec", [Uniform(3), Uniform(1, True), Uniform(4, group=2), Uniform(8, group=-1)])
@pytest.mark.parametrize("rank", [0, 2])
def test_equals_the_float_layer(name: str, codec: Uniform, rank: int) -> None:
    layer, code, result = coded(name, codec, rank)
    inputs = torch.randn(CASES[name][1])
    assert torch.equal(result(inputs), layer(inputs))
    assert torch.equal(result.weight, layer.get_parameter("weight"))
    assert isinstance(result, type(layer))
    again = result.code()
    assert torch.equal(again.weight.codes, code.weight.codes)
    assert torch.equal(again.compose(), code.compose())


def test_full_rank_is_the_float_layer(name: str) -> None:
    layer = CASES[name][0]
    weight = Geometry.of(layer).to_matrix(layer.get_parameter("weight").detach())
    code = code_of(layer, Uniform(2), 0)
    directions = decompose(weight - code.weight.decode().reshape(weight.shape), "svd", {})
    whole = Geometry.of(layer).from_matrix(code.compose() + directions.product())
    inputs = torch.randn(CASES[name][1])
    float_like = copy.deepcopy(layer)
    float_like.get_parameter("weight").data = whole
    assert torch.allclose(float_like(inputs), layer(inputs), atol=1e-5)


def test_state_has_no_float_weight_and_is_as_small_as_promised(name: str) -> None:
    layer, code, result = coded(name)
    result(torch.randn(CASES[name][1]))
    state = result.state_dict()
    slots = LayerFormat(Geometry.of(layer).matrix_shape, Uniform(3), 2, 8).tensors()
    assert set(state) == set(slots) | ({"bias"} if layer.bias is not None else set())
    assert [key for key, value in state.items() if value.is_floating_point() and not key.endswith("scale")] in (
        ["bias"],
        [],
    )
    for key, slot in slots.items():
        size = 2 * slot.count if slot.scale else packed_bytes(slot.count, slot.bits)
        assert state[key].numel() * state[key].element_size() == size
    counted = {name: tensor.numel() for name, tensor in code.tensors().items()}
    assert counted == {name: slot.count for name, slot in slots.items()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_casting_there_and_back_loses_nothing(name: str, dtype: torch.dtype) -> None:
    layer, _, result = coded(name)
    before = {key: value.clone() for key, value in result.state_dict().items() if key != "bias"}
    weight = result.weight.clone()
    result.to(dtype)
    assert result.weight.dtype == dtype
    assert torch.equal(result.weight, weight.to(dtype))
    if dtype != torch.float16:
        inputs = torch.randn(CASES[name][1]).to(dtype)
        assert torch.equal(result(inputs), copy.deepcopy(layer).to(dtype)(inputs))
    result.float()
    assert torch.equal(result.weight, weight)
    after = result.state_dict()
    assert all(torch.equal(after[key], value) and after[key].dtype == value.dtype for key, value in before.items())


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_copies(name: str) -> None:
    _, _, result = coded(name)
    inputs = torch.randn(CASES[name][1])
    expected = result(inputs)
    buffer = io.BytesIO()
    torch.save(result, buffer)
    buffer.seek(0)
    for again in (
        copy.deepcopy(result),
        pickle.loads(pickle.dumps(result)),
        torch.load(buffer, weights_only=False),
    ):
        assert torch.equal(again(inputs), expected)
        assert again.codes.data_ptr() != result.codes.data_ptr()
        again._buffers["codes"].zero_()
        again.load_state_dict(result.state_dict())
        assert torch.equal(again(inputs), expected)
    assert torch.equal(result(inputs), expected)


def test_state_fits_a_fresh_layer_and_refreshes_its_weight(name: str) -> None:
    layer, _, result = coded(name)
    fresh = coded_class(layer)(layer, Uniform(3), 2, 8)
    inputs = torch.randn(CASES[name][1])
    blank = fresh(inputs)
    fresh.load_state_dict(result.state_dict())
    assert torch.equal(fresh(inputs), result(inputs))
    assert not torch.equal(fresh(inputs), blank)
    nested = nn.Sequential(coded_class(layer)(layer, Uniform(3), 2, 8))
    nested(inputs)
    nested.load_state_dict(nn.Sequential(result).state_dict())
    assert torch.equal(nested(inputs), result(inputs))


def test_weight_is_composed_once() -> None:
    _, _, result = coded("conv2d")
    assert result.weight is result.weight
    assert not result.weight.requires_grad
    first = result.weight
    result.fill(result.code(), None)
    assert result.weight is not first


def test_to_float(name: str) -> None:
    layer, _, result = coded(name)
    inputs = torch.randn(CASES[name][1])
    plain = result.eval().to_float()
    assert type(plain) is type(layer)
    assert set(plain.state_dict()) == set(layer.state_dict())
    assert torch.equal(plain(inputs), layer(inputs))
    assert not plain.training and result.train().to_float().training
    assert repr(plain) == repr(layer)
    copy.deepcopy(plain)
    plain.get_parameter("weight").data.zero_()
    assert bool(result.weight.any())


def test_gradients_flow_through_to_the_inputs() -> None:
    layer, _, result = coded("conv2d")
    inputs = torch.randn(2, 3, 7, 6, requires_grad=True)
    result(inputs).square().sum().backward()
    expected = torch.autograd.grad(layer(inputs).square().sum(), inputs)[0]
    assert inputs.grad is not None and torch.equal(inputs.grad, expected)


def test_no_parameter_trains_and_none_is_hidden() -> None:
    _, _, result = coded("conv2d")
    assert [name for name, _ in result.named_parameters()] == ["bias"]
    assert "bits=3, rank=2" in repr(result)


def test_bias_may_be_added_or_kept_away() -> None:
    layer = nn.Conv2d(2, 3, 1, bias=False)
    result = coded_class(layer)(layer, Uniform(3)).keep_bias(True)
    result.fill(code_of(layer, Uniform(3), 0), torch.arange(3.0))
    assert result.bias is not None and result.bias.tolist() == [0, 1, 2]
    assert coded_class(layer)(layer, Uniform(3)).bias is None


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_adapter_widths(bits: int) -> None:
    layer = nn.Conv2d(4, 6, 3)
    code = code_of(layer, Uniform(2), 3, bits)
    result = coded_class(layer)(layer, Uniform(2), 3, bits)
    result.fill(code, None)
    assert torch.equal(result.code().compose(), code.compose())


def test_state_that_does_not_fit_is_refused() -> None:
    layer, _, result = coded("conv2d")
    other = coded_class(layer)(layer, Uniform(4), 2, 8)
    with pytest.raises(RuntimeError, match="size mismatch for codes"):
        other.load_state_dict(result.state_dict())


class OwnForward(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


class OwnConvolution(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight * 2, bias)


class OnlyNamed(nn.Conv2d):
    """A subclass that computes as its base does."""


def test_which_layers_are_coded() -> None:
    for layer, _ in CASES.values():
        assert issubclass(coded_class(layer), type(layer))
    assert issubclass(coded_class(OnlyNamed(1, 1, 1)), nn.Conv2d)
    with pytest.raises(ModelError, match=r"OwnForward has a forward\(\) of its own"):
        coded_class(OwnForward(1, 1))
    with pytest.raises(ModelError, match="OwnConvolution"):
        coded_class(OwnConvolution(1, 1, 1))
    with pytest.raises(ModelError, match="Bilinear"):
        coded_class(nn.Bilinear(2, 2, 2))
    with pytest.raises(ModelError, match="coded already"):
        coded_class(coded("linear")[2])
    with pytest.raises(ModelError, match="parametrization"):
        coded_class(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))


def test_pickled_and_copied_layers_hold_codes_and_no_float_weight() -> None:
    layer = nn.Linear(128, 128)
    result = coded_class(layer)(layer, Uniform(2))
    result.fill(code_of(layer, Uniform(2), 0), layer.bias.detach())
    cold = len(pickle.dumps(result))
    result.compose()
    assert len(pickle.dumps(result)) == cold < 128 * 128
    again = pickle.loads(pickle.dumps(result))
    assert again._cache is not None and torch.equal(again._cache, result.weight)
    assert torch.equal(copy.deepcopy(result).weight, result.weight)


def test_a_weight_composed_in_inference_mode_serves_autograd() -> None:
    _, _, result = coded("conv2d")
    inputs = torch.randn(2, 3, 7, 6)
    with torch.inference_mode():
        expected = result(inputs)
    inputs.requires_grad_()
    output = result(inputs)
    output.sum().backward()
    assert inputs.grad is not None and torch.equal(output, expected)


def test_a_weight_composed_for_another_dtype_is_composed_anew() -> None:
    _, _, result = coded("conv2d")
    weight = result.weight
    result._buffers["_float"] = torch.zeros(0, dtype=torch.float64)
    assert torch.equal(result.weight, weight.double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_computes_with_another_weight_of_any_dtype(name: str, dtype: torch.dtype) -> None:
    layer, _, module = coded(name)
    module.to(dtype)
    inputs = torch.randn(CASES[name][1]).to(dtype)
    own = module(inputs)
    other = torch.randn(layer.get_parameter("weight").shape, requires_grad=True)
    with module.computing_with(other):
        found = module(inputs)
        found.float().square().sum().backward()
    assert other.grad is not None and bool(other.grad.any())
    layer.to(dtype).get_parameter("weight").data = other.detach().to(dtype)
    assert torch.equal(found, layer(inputs))
    assert torch.equal(module(inputs), own)  # and with its own again


def test_rounds_its_inputs_by_what_is_given() -> None:
    layer = nn.Linear(6, 5)
    plain = code_of(layer, THREE_BITS, 0)
    state = CodedLayerState(plain.codec, plain.weight, None, 8, InputQuantizer(4, torch.tensor(0.5), 8))
    module = coded_class(layer)(layer, THREE_BITS, 0, 8, inputs=4)
    module.fill(state, None)
    inputs = torch.randn(3, 6)
    for given, expected in ((torch.zeros_like, torch.zeros(3, 6)), (None, inputs)):
        with module.computing_with(layer.weight, given):
            torch.testing.assert_close(module(inputs), expected @ layer.weight.T)
