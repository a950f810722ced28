"""A shortcut round a layer and its norm: shapes, values, and who takes none."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from corank.errors import ModelError
from corank.layers.shortcut import Shortcut, takes_a_shortcut

SAME = [
    (nn.Conv2d(4, 4, 3, padding=1), (2, 4, 7, 6)), (nn.Linear(6, 6), (2, 5, 6)),
    (nn.Conv1d(4, 4, 5, padding=2), (2, 4, 9)),
    (nn.Conv2d(4, 4, 3, padding="same", dilation=2), (2, 4, 7, 6)), (nn.Conv3d(2, 2, 1), (1, 2, 3, 3, 3)),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "shape"), SAME)
def test_the_inputs_are_added_where_shapes_agree(layer: nn.Module, shape: tuple[int, ...]) -> None:
    inputs = torch.randn(shape)
    assert torch.equal(Shortcut(layer)(inputs), layer(inputs) + inputs)


def test_it_goes_round_the_norm() -> None:
    layer, norm, inputs = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), torch.randn(8, 3, 5, 5)
    made = Shortcut(layer.eval(), norm.eval())
    assert not made.training
    assert torch.equal(made(inputs), norm(layer(inputs)) + inputs)


@pytest.mark.parametrize("size", [8, 7, 1])
def test_a_stride_averages_and_channels_repeat(size: int) -> None:
    layer, inputs = nn.Conv2d(3, 6, 3, 2, padding=1), torch.randn(2, 3, size, size)
    expected = F.avg_pool2d(inputs, 2, 2, ceil_mode=True, count_include_pad=False)
    found = Shortcut(layer)(inputs) - layer(inputs)
    torch.testing.assert_close(found, torch.cat([expected, expected], 1))
    # the last of an odd size is the mean of what is there
    if size == 7:
        torch.testing.assert_close(found[:, :3, -1, -1], inputs[:, :, -1, -1])


def test_fewer_channels_are_means_of_neighbours() -> None:
    layer, tokens = nn.Linear(6, 2), torch.randn(2, 4, 6)
    found = Shortcut(layer)(tokens) - layer(tokens)
    torch.testing.assert_close(found, torch.stack([tokens[..., :3].mean(-1), tokens[..., 3:].mean(-1)], -1))


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(3, 4, 1), nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 2, padding=1), nn.ConvTranspose2d(3, 3, 1), nn.ReLU(),
     nn.Linear(4, 6), nn.Conv2d(3, 3, 3, padding=2)],
)  # fmt: skip
def test_layers_that_take_none(layer: nn.Module) -> None:
    assert not takes_a_shortcut(layer)
    with pytest.raises(ModelError, match="takes no shortcut"):
        Shortcut(layer)


def test_a_norm_that_it_does_not_go_round() -> None:
    with pytest.raises(ModelError, match="a LayerNorm is no norm that a shortcut goes round"):
        Shortcut(nn.Linear(3, 3), nn.LayerNorm(3))
