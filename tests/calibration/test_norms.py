"""Norm statistics against those of the activations themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.calibration import reestimate_norms
from corank.errors import DataError


class PreActivation(nn.Module):
    """Its norms come before the layers, so that none can be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.mid = nn.Conv2d(8, 8, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y = y + self.mid(torch.relu(self.norm(y)))
        return self.head(self.drop(y).mean(dim=(2, 3)))


@pytest.fixture
def small() -> nn.Module:
    torch.manual_seed(0)
    model = PreActivation()
    model(torch.randn(64, 2, 6, 6))
    return corank.quantize(model.eval(), torch.randn(32, 2, 6, 6), bits=2, budget=0, preset="nearest", all_layers=True)


def test_statistics_are_those_of_what_the_norm_is_fed(small: nn.Module) -> None:
    images = torch.randn(96, 2, 6, 6)
    with torch.no_grad():
        fed = [small.stem(part) for part in images.split(32)]  # pyright: ignore[reportCallIssue]
    assert reestimate_norms(small, images, batch_size=32) == ("norm",)
    means = torch.stack([part.mean(dim=(0, 2, 3)) for part in fed]).mean(0)
    variances = torch.stack([part.transpose(0, 1).flatten(1).var(1) for part in fed]).mean(0)
    norm = small.get_submodule("norm")
    assert torch.allclose(norm.running_mean, means, atol=1e-5)
    assert torch.allclose(norm.running_var, variances, rtol=1e-4)


def test_nothing_else_changes_and_the_file_keeps_it(small: nn.Module, tmp_path) -> None:
    before = {name: value.clone() for name, value in small.state_dict().items()}
    momentum = small.get_submodule("norm").momentum
    reestimate_norms(small, torch.randn(64, 2, 6, 6) + 1)
    changed = {name for name, value in small.state_dict().items() if not torch.equal(value, before[name])}
    assert changed - {"norm.num_batches_tracked"} == {"norm.running_mean", "norm.running_var"}
    assert small.get_submodule("norm").momentum == momentum
    assert not any(module.training for module in small.modules())
    corank.save(small, tmp_path / "small.safetensors")
    again = corank.load(tmp_path / "small.safetensors", PreActivation())
    images = torch.randn(4, 2, 6, 6)
    assert torch.equal(small(images), again(images))


def test_a_network_without_norms_is_left_alone() -> None:
    assert reestimate_norms(nn.Sequential(nn.Linear(3, 3)), torch.randn(4, 3)) == ()


def test_data_that_does_not_fit_changes_nothing(small: nn.Module) -> None:
    before = {name: value.clone() for name, value in small.state_dict().items()}
    with pytest.raises(DataError):
        reestimate_norms(small, torch.randn(8, 3, 6, 6))
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
