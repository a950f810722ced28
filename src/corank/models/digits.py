"""A small residual ConvNet for scikit-learn's handwritten digits, shipped with its trained weights."""

from __future__ import annotations

from importlib import resources

from safetensors.torch import load
from torch import Tensor, nn

from corank.models.residual import ResidualBlock

__all__ = ["DigitsNet", "digits_net"]

WIDTHS = (16, 32, 64)


class DigitsNet(nn.Module):
    """Images (N, 1, 8, 8), float in 0..1, to logits (N, 10): six residual blocks, randomly initialised."""

    def __init__(self) -> None:
        super().__init__()
        small, middle, large = WIDTHS
        self.stem = nn.Sequential(nn.Conv2d(1, small, 3, padding=1, bias=False), nn.BatchNorm2d(small), nn.ReLU())
        self.stage1 = nn.Sequential(ResidualBlock(small, small, 1), ResidualBlock(small, small, 1))
        self.stage2 = nn.Sequential(ResidualBlock(small, middle, 2), ResidualBlock(middle, middle, 1))
        self.stage3 = nn.Sequential(ResidualBlock(middle, large, 2), ResidualBlock(large, large, 1))
        self.head = nn.Linear(large, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage3(self.stage2(self.stage1(self.stem(x))))
        return self.head(x.mean(dim=(2, 3)))


def digits_net() -> nn.Module:
    """The trained `DigitsNet`, float32 and in evaluation mode; its weights are part of the package.

    `bench/train_digits.py` trains it on the images whose index in the data set is not 3, 7, 11, ...
    (`digits:train`); the others are `digits:test`. Weights are stored in fp16.
    """
    stored = load(resources.files("corank.models").joinpath("digits.safetensors").read_bytes())
    model = DigitsNet()
    model.load_state_dict(stored)
    return model.eval()
