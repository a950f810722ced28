"""What blocks compute twice changes no number of a training, and takes less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.errors import ConfigError
from corank.storage.artifact import serialized
from corank.storage.model_record import ATTRIBUTE
from corank.training.recipes import RECIPES


class Block(nn.Module):
    """A residual block with a norm and a draw."""

    passes = 0

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm, self.drop = nn.BatchNorm2d(channels), nn.Dropout(0.2)

    def forward(self, x: Tensor, *, factor: float = 1.0) -> Tensor:
        type(self).passes += torch.is_grad_enabled() and self.conv.weight.requires_grad
        return x + factor * self.drop(self.norm(self.conv(x)).relu())


class Net(nn.Module):
    """Images (N, 3, 6, 6) to 4 logits, through a list of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
        self.blocks = nn.ModuleList([Block(8) for _ in range(4)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, factor=0.5)
        return self.head(x.mean((2, 3)))


IMAGES = torch.randn(24, 3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float32)
LABELS = torch.arange(24) % 4


def trained(recipe: corank.Recipe, recompute: bool, **asked: Any) -> tuple[bytes, list[float], int]:
    """The file, the losses, and how often blocks ran with gradients."""
    torch.manual_seed(7)
    model, Block.passes = Net().eval(), 0
    asked = {"iterations": 4, "batch_size": 8, "recompute": recompute, **asked}
    small = corank.train(model, (IMAGES, LABELS), recipe, **asked)
    losses = [entry["loss"] for entry in small.__dict__[ATTRIBUTE].history]
    assert not any("forward" in module.__dict__ for module in small.modules())
    return bytes(serialized(small)), losses, Block.passes


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPES["stats"](2, None),
        RECIPES["lsq"](4, 4),
        RECIPES["stats"](2, None).replaced(norms="frozen", precision="bfloat16"),
        RECIPES["dorefa"](2, 4).replaced(loss="labels", start="float"),  # draws
        RECIPES["direct"](2, 4),  # inputs whose steps move with passes
    ],
)
def test_the_file_is_the_same(recipe: corank.Recipe) -> None:
    whole, again = trained(recipe, False, parts=4), trained(recipe, True, parts=4)
    assert again[:2] == whole[:2]
    assert again[2] == whole[2] + 4 * 4 * 2  # steps, blocks, parts


def test_a_language_model_with_a_cache() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=24, hidden_size=16, intermediate_size=24, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, use_cache=True, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(5)
    model = transformers.LlamaForCausalLM(config).eval()
    tokens = torch.randint(24, (8, 16), generator=torch.Generator().manual_seed(2))
    recipe = RECIPES["stats"](3, None).replaced(precision="float32")
    losses = []
    for recompute in (False, True):
        small = corank.train(model, tokens, recipe, iterations=3, batch_size=4, recompute=recompute)
        losses.append([entry["loss"] for entry in small.__dict__[ATTRIBUTE].history])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_what_it_cannot_do_is_said_before_anything_else() -> None:
    with pytest.raises(ConfigError, match="no gradients of gradients, which GradientL1 needs"):
        corank.train(Net(), (IMAGES, LABELS), "gradient-l1", recompute=True)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(108, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    small = corank.train(flat.eval(), IMAGES, "stats-2bit", iterations=1, recompute=True)
    assert any("no blocks" in text for text in small.__dict__[ATTRIBUTE].notes)
