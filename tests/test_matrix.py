"""The matrix view of every supported layer: the same numbers, the same outputs."""

from __future__ import annotations

import pytest
import torch
from reference.patches import unfolded
from torch import Tensor, nn

import corank.matrix
from corank.errors import ModelError
from corank.matrix import Geometry

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

CASES = {
    "conv1d": (nn.Conv1d(4, 6, 3), (2, 4, 11)),
    "conv1d same even kernel": (nn.Conv1d(4, 6, 4, padding="same", dilation=3), (2, 4, 20)),
    "conv1d circular grouped": (
        nn.Conv1d(4, 6, 5, padding=2, groups=2, stride=2, padding_mode="circular"),
        (2, 4, 9),
    ),
    "conv2d": (nn.Conv2d(3, 5, 3, padding=1), (2, 3, 7, 6)),
    "conv2d stride dilation": (nn.Conv2d(3, 5, (3, 2), (2, 3), (1, 4), (2, 1)), (2, 3, 9, 8)),
    "conv2d groups": (nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False), (3, 4, 5, 6)),
    "conv2d depthwise": (nn.Conv2d(4, 4, 3, padding=1, groups=4), (2, 4, 5, 5)),
    "conv2d depthwise multiplier": (nn.Conv2d(3, 6, 3, stride=2, groups=3), (2, 3, 7, 7)),
    "conv2d pointwise": (nn.Conv2d(4, 6, 1), (2, 4, 3, 3)),
    "conv2d reflect": (nn.Conv2d(3, 4, 3, padding=(2, 1), padding_mode="reflect"), (2, 3, 6, 7)),
    "conv2d circular": (nn.Conv2d(3, 4, 3, padding=(1, 2), padding_mode="circular"), (2, 3, 6, 7)),
    "conv2d replicate": (nn.Conv2d(3, 4, 3, padding=2, padding_mode="replicate", stride=2), (2, 3, 6, 7)),
    "conv2d same": (nn.Conv2d(3, 4, (4, 3), padding="same", dilation=(1, 2)), (2, 3, 6, 7)),
    "conv2d same reflect": (nn.Conv2d(3, 4, 4, padding="same", padding_mode="reflect"), (2, 3, 6, 7)),
    "conv2d valid": (nn.Conv2d(3, 4, 3, padding="valid"), (2, 3, 6, 7)),
    "conv3d": (nn.Conv3d(2, 4, (2, 3, 3), padding=1, stride=(1, 2, 1), groups=2), (2, 2, 4, 5, 6)),
    "conv3d replicate": (nn.Conv3d(2, 3, 3, padding=1, padding_mode="replicate"), (1, 2, 3, 4, 5)),
    "transposed 1d": (nn.ConvTranspose1d(4, 6, 5, stride=3, padding=2, output_padding=1), (2, 4, 6)),
    "transposed 2d": (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), (2, 4, 5, 4)),
    "transposed 2d groups dilation": (
        nn.ConvTranspose2d(4, 6, (3, 2), (2, 1), (1, 0), groups=2, dilation=(2, 3)),
        (2, 4, 5, 4),
    ),
    "transposed 2d depthwise": (nn.ConvTranspose2d(4, 4, 4, 2, 1, groups=4, bias=False), (2, 4, 3, 3)),
    "transposed 3d": (nn.ConvTranspose3d(2, 4, 3, stride=(1, 2, 1), padding=1, groups=2), (2, 2, 3, 3, 2)),
    "linear": (nn.Linear(5, 7), (4, 5)),
    "linear tokens": (nn.Linear(5, 7, bias=False), (4, 6, 5)),
    "linear grid of tokens": (nn.Linear(5, 7), (2, 3, 4, 5)),
}


@pytest.fixture(params=CASES, name="case")
def _case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    layer, shape = CASES[request.param]
    return layer, torch.randn(shape)


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_matrix_round_trip(case: tuple[nn.Module, Tensor]) -> None:
    layer, _ = case
    geometry = Geometry.of(layer)
    weight = layer.get_parameter("weight").detach()
    matrix = geometry.to_matrix(weight)
    assert tuple(matrix.shape) == geometry.matrix_shape
    assert torch.equal(geometry.from_matrix(matrix), weight)
    assert torch.equal(geometry.from_matrix(matrix.flatten(0, 1)), weight)


def test_layer_is_patches_times_matrix(case: tuple[nn.Module, Tensor]) -> None:
    layer, inputs = case
    geometry = Geometry.of(layer)
    outputs = layer(inputs).detach()
    rows = geometry.patches(inputs, 10**6, draws())
    product = rows @ geometry.to_matrix(layer.get_parameter("weight").detach()).transpose(1, 2)
    if layer.bias is not None:
        product = product + layer.get_parameter("bias").detach().reshape(geometry.groups, 1, -1)
    assert torch.allclose(product, geometry.group_outputs(outputs), atol=2e-6)


def test_output_positions(case: tuple[nn.Module, Tensor]) -> None:
    layer, inputs = case
    geometry = Geometry.of(layer)
    outputs = layer(inputs)
    channels = geometry.matrix_shape[0] * geometry.matrix_shape[1]
    assert geometry.output_positions(inputs) == outputs.numel() // channels // inputs.shape[0]


def test_subsampled_positions_are_a_subset(case: tuple[nn.Module, Tensor]) -> None:
    layer, inputs = case
    geometry = Geometry.of(layer)
    everything = geometry.patches(inputs, 10**6, draws())
    some = geometry.patches(inputs, 2, draws())
    positions = geometry.output_positions(inputs)
    assert some.shape[1] == inputs.shape[0] * min(2, positions)
    known = {tuple(row) for row in everything.transpose(0, 1).flatten(1).tolist()}
    taken = [tuple(row) for row in some.transpose(0, 1).flatten(1).tolist()]
    assert set(taken) <= known
    assert torch.equal(some, geometry.patches(inputs, 2, draws()))


def test_kept_tables_read_what_fresh_ones_do(case: tuple[nn.Module, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    layer, inputs = case
    geometry = Geometry.of(layer)
    kept = geometry.patches(inputs, 2, draws())
    monkeypatch.setattr(corank.matrix, "_TABLE_ENTRIES", 0)
    assert torch.equal(kept, geometry.patches(inputs, 2, draws()))


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d])
def test_unbatched_inputs(kind: type[nn.Module]) -> None:
    layer = kind(3, 4, 3, padding=1)
    geometry = Geometry.of(layer)
    inputs = torch.randn(3, *[5] * len(geometry.kernel))
    rows = geometry.patches(inputs, 10**6, draws())
    product = rows @ geometry.to_matrix(layer.get_parameter("weight").detach()).transpose(1, 2)
    product = product + layer.get_parameter("bias").detach()
    assert torch.allclose(product, geometry.group_outputs(layer(inputs).detach()), atol=1e-6)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular", "replicate"])
def test_patches_are_those_of_unfold(mode: str) -> None:
    layer = nn.Conv2d(4, 6, (3, 2), (2, 1), (2, 1), (1, 2), groups=2, padding_mode=mode)
    inputs = torch.randn(3, 4, 6, 5)
    assert torch.equal(Geometry.of(layer).patches(inputs, 10**6, draws()), unfolded(layer, inputs))


def test_columns_order_is_channel_then_kernel_position() -> None:
    layer = nn.ConvTranspose2d(2, 3, 2)
    matrix = Geometry.of(layer).to_matrix(layer.weight.detach())
    assert float(matrix[0, 1, 4 + 2]) == float(layer.weight.detach()[1, 1, 1, 0])


def test_other_layers_are_refused() -> None:
    with pytest.raises(ModelError, match=r"Bilinear.*supported: Conv1d"):
        Geometry.of(nn.Bilinear(3, 4, 5))
