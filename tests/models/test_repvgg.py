"""Fusing a RepVGG block changes nothing of what it computes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from corank.errors import ModelError
from corank.layers import split_centres
from corank.models.repvgg import RepVgg, RepVggBlock, fuse_repvgg


def trained(model: nn.Module) -> nn.Module:
    """Norms with statistics and affine parts as after some training."""
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean = torch.randn(part.num_features) * 0.3
            part.running_var = torch.rand(part.num_features) + 0.5
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
    return model.eval()


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 4, 1), (4, 6, 1), (4, 4, 2), (4, 6, 2)])
def test_a_fused_block_computes_the_same(inputs: int, outputs: int, stride: int) -> None:
    torch.manual_seed(0)
    block = trained(RepVggBlock(inputs, outputs, stride)).double()
    assert isinstance(block, RepVggBlock)
    assert (block.identity_norm is not None) == (inputs == outputs and stride == 1)
    images = torch.randn(2, inputs, 9, 9, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(block.fused()(images), block(images), atol=1e-12)


def test_a_fused_network_is_dominated_by_centres_and_can_be_split() -> None:
    torch.manual_seed(0)
    model = trained(RepVgg((1, 2, 1), (8, 8, 16), 10, small_images=True))
    fused = fuse_repvgg(model)
    assert not any(isinstance(part, RepVggBlock) for part in fused.modules())
    assert any(isinstance(part, RepVggBlock) for part in model.modules())
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = model(images)
        assert torch.allclose(fused(images), expected, atol=1e-4)
        assert torch.allclose(split_centres(fused, dominance=0)(images), expected, atol=1e-4)


def test_strides_halve_the_image() -> None:
    images = torch.randn(1, 3, 32, 32)
    assert RepVgg((1, 1, 1), (4, 4, 8)).blocks(images).shape == (1, 8, 4, 4)
    assert RepVgg((1, 1, 1), (4, 4, 8), small_images=True).blocks(images).shape == (1, 8, 16, 16)


def test_a_network_without_blocks() -> None:
    with pytest.raises(ModelError, match="no RepVggBlock"):
        fuse_repvgg(nn.Sequential(nn.Linear(3, 3)))
