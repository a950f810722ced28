"""Small networks whose channels are coupled in every way, by name; each with the shape of its inputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["NETWORKS", "Padded", "images", "network"]


class Residual(nn.Module):
    """A stem, a block beside a shortcut, and a depthwise and a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.inner, self.outer = nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 12, 1, groups=2)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.outer(torch.relu(self.inner(x)))
        x = self.grouped(torch.relu(self.depthwise(x)))
        return self.head(torch.relu(x).mean((2, 3)))


class Joined(nn.Module):
    """Concatenated channels, flattened images, and a norm of groups."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 3, padding=1)
        self.both, self.norm = nn.Conv2d(10, 8, 1), nn.GroupNorm(2, 8)
        self.head = nn.Linear(8 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), torch.relu(self.right(x))], 1)
        x = torch.relu(self.norm(self.both(x)))
        return self.head(F.adaptive_avg_pool2d(x, 4).flatten(1))


class Padded(nn.Module):
    """A shortcut that pads its channels with zeros, whose number is written in its code."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = self.outer(torch.relu(self.inner(x))) + F.pad(x, (0, 0, 0, 0, 2, 2))
        return self.head(torch.relu(x).mean((2, 3)))


def _squeezenet() -> nn.Module:
    from torchvision.models.squeezenet import Fire

    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), Fire(8, 4, 8, 8), Fire(16, 4, 8, 8), nn.Conv2d(16, 5, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def _densenet() -> nn.Module:
    from torchvision.models import DenseNet

    return DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8, bn_size=2, num_classes=5)


def _mobilenet() -> nn.Module:
    from torchvision.models import MobileNetV2

    return MobileNetV2(num_classes=5, width_mult=0.25, inverted_residual_setting=[[1, 16, 1, 1], [6, 32, 2, 2]])


def _vit() -> nn.Module:
    import timm

    return timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=32, depth=2, num_heads=4, num_classes=5
    )


def _convnext() -> nn.Module:
    import timm

    return timm.create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 16, 16, 16), num_classes=5)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, (2, 3, 8, 8)),
    "joined": (Joined, (2, 3, 8, 8)),
    "padded": (Padded, (2, 3, 8, 8)),
    "squeezenet": (_squeezenet, (2, 3, 32, 32)),
    "densenet": (_densenet, (2, 3, 32, 32)),
    "mobilenet": (_mobilenet, (2, 3, 32, 32)),
    "vit": (_vit, (2, 3, 16, 16)),
    "convnext": (_convnext, (2, 3, 32, 32)),
}


def network(name: str) -> nn.Module:
    """The network of that name, in evaluation mode, its norms' numbers as if it were trained."""
    torch.manual_seed(0)
    model = NETWORKS[name][0]().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.3, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return model


def images(name: str) -> Tensor:
    """A batch for it."""
    return torch.randn(NETWORKS[name][1], generator=torch.Generator().manual_seed(1))
