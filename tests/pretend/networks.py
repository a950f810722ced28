"""Networks and data small enough to be taken through everything on the pretend device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["IMAGES", "KINDS", "LABELS", "TOKENS", "convolutional", "data_of", "language_model"]

IMAGES = torch.randn(12, 3, 6, 6, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(12) % 5
TOKENS = torch.randint(24, (6, 16), generator=torch.Generator().manual_seed(2))


def convolutional() -> nn.Sequential:
    """Every way of grouping, a norm to fold, and a shared layer's worth of channels."""
    return seeded(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(),
        nn.Sequential(nn.Conv2d(8, 8, 1, groups=2), nn.ReLU(), nn.Conv2d(8, 6, 3, stride=2)), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip


def seeded(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(3)
    model = nn.Sequential(*layers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.4 if parameter.dim() > 1 else 0.1))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.add_(1.0)
    return model.eval()


class Shared(nn.Module):
    """One layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.twice(self.twice(self.first(x)).relu()).relu())


KINDS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "linear": (lambda: seeded(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)), (6,)),
    "linear of tokens": (lambda: seeded(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5)), (9, 6)),
    "conv1d": (lambda: seeded(nn.Conv1d(4, 6, 3, groups=2), nn.ReLU(), nn.Conv1d(6, 5, 3, padding="same")), (4, 9)),
    "conv2d": (convolutional, (3, 6, 6)),
    "reflected": (lambda: seeded(nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect"), nn.Tanh()), (3, 5, 5)),
    "conv3d": (lambda: seeded(nn.Conv3d(2, 4, 2), nn.ReLU(), nn.Conv3d(4, 3, 2, dilation=2)), (2, 5, 5, 5)),
    "transposed 1d": (lambda: seeded(nn.ConvTranspose1d(4, 6, 3, 2, groups=2), nn.Tanh()), (4, 5)),
    "transposed 2d": (lambda: seeded(nn.ConvTranspose2d(3, 4, 3, 2, 1, 1), nn.Tanh()), (3, 4, 4)),
    "transposed 3d": (lambda: seeded(nn.ConvTranspose3d(2, 3, 2), nn.Tanh()), (2, 3, 3, 3)),
    "shared": (lambda: seeded(Shared()), (6,)),
}


def data_of(kind: str, count: int = 8) -> Tensor:
    """Samples of a kind's shape."""
    return torch.randn(count, *KINDS[kind][1], generator=torch.Generator().manual_seed(4))


def language_model() -> Any:
    """A Llama of one block."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=24, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(5)
    return LlamaForCausalLM(config).eval()
