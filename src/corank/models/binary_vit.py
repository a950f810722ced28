"""BinaryViT (Le and Li, arXiv 2306.16678): a vision transformer whose every block keeps what a CNN gives signs.

``N`` images, ``T`` tokens on a square grid, ``C`` channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.data.preprocessing import Preprocessing
from corank.errors import ConfigError, ModelError
from corank.layers import HalfParameters, RPReLU
from corank.layers.half import half
from corank.models.binary_attention import Attention, TokenNorm, Unit, as_grid
from corank.models.loader import LoadedModel, Request
from corank.models.made_name import read_name

__all__ = ["BinaryViT", "BinaryViTShape", "load_binary_vit"]

EXAMPLE = "binary-vit:10, or binary-vit:10,size=32,patch=2,width=32,depths=1-1-1-1,reductions=4-2-1-1,form=float"
FORMS = ("binary", "float")
MOST_CLASSES, MOST_WIDTH, MOST_BLOCKS, MOST_SIZE = 100_000, 1024, 64, 4096
_POOLS = ((1, 3), (3, 1), (1, 5), (5, 1))


@dataclass(frozen=True)
class BinaryViTShape:
    """How large, the paper's unless said; a field of several numbers has one for each stage.

    Attributes:
        size: of the images' sides, in pixels.
        patch: the side of what the first layer makes a token.
        width: channels of the first stage; each further stage has twice as many, and twice as many heads, from one.
        depths: blocks.
        ratios: channels inside an MLP, in those around it.
        reductions: what the sides of the grid of keys and values are divided by.
        form: "binary", or "float": attention without signs, for a network that stays in float or teaches.

    Raises:
        ConfigError: for numbers that cannot be, such as a grid that does not halve.
    """

    size: int = 224
    patch: int = 4
    width: int = 64
    depths: tuple[int, ...] = (3, 4, 8, 4)
    ratios: tuple[int, ...] = (8, 8, 4, 4)
    reductions: tuple[int, ...] = (8, 4, 1, 1)
    form: str = "binary"

    def __post_init__(self) -> None:
        stages = len(self.depths)
        if self.form not in FORMS:
            raise ConfigError(f"form={self.form!r:.60}: one of {', '.join(FORMS)}")
        if not 1 <= stages <= 8 or not len(self.ratios) == len(self.reductions) == stages:
            raise ConfigError(f"{self}: as many ratios and reductions as depths, 1 to 8")
        if min(self.size, self.patch, self.width, *self.depths, *self.ratios, *self.reductions) < 1:
            raise ConfigError(f"{self}: numbers from 1 on")
        if self.size > MOST_SIZE or self.width << (stages - 1) > 8 * MOST_WIDTH or sum(self.depths) > MOST_BLOCKS:
            raise ConfigError(f"{self}: at most {MOST_SIZE} pixels, {MOST_WIDTH} channels and {MOST_BLOCKS} blocks")
        if max(self.ratios) > 64:
            raise ConfigError(f"{self}: ratios to 64")
        for stage, reduction in enumerate(self.reductions):
            if self.size % (self.patch << stage) or self.grid(stage) % reduction:
                raise ConfigError(
                    f"{self.size} pixels do not give stage {stage + 1} whole tokens of {self.patch << stage} pixels "
                    f"and keys of {reduction} tokens; such as size=32, patch=2, reductions=4-2-1-1 do"
                )

    def grid(self, stage: int) -> int:
        """Tokens on a side of a stage, from 0."""
        return self.size // (self.patch << stage)


class BinaryViT(nn.Module):
    """Images ``(N, 3, size, size)`` to logits ``(N, classes)``, randomly initialised.

    Its linear layers and the convolutions between stages are torch's own, in float: the recipe ``binary-vit-w1a1``
    makes weights and inputs signs. What stands between them (shortcuts, norms, RPReLU) is the paper's already, and so
    is attention where ``shape.form`` is "binary". Ours, where the paper's text was not to be had: norms where a block
    begins, behind the patches and before the head; positions that start at zero.

    Args:
        classes: logits.
        shape: how large.

    Raises:
        ConfigError: fewer than 2 classes.
    """

    def __init__(self, classes: int, shape: BinaryViTShape | None = None) -> None:
        super().__init__()
        self.shape = BinaryViTShape() if shape is None else shape
        if not 2 <= classes <= MOST_CLASSES:
            raise ConfigError(f"{classes} classes: 2 to {MOST_CLASSES}, e.g. BinaryViT(10)")
        of, width = self.shape, self.shape.width
        self.patch = nn.Conv2d(3, width, of.patch, of.patch, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.position = Position(of.grid(0), width, self.patch.weight)
        self.stages = nn.ModuleList(Stage(of, stage) for stage in range(len(of.depths)))
        last = width << (len(of.depths) - 1)
        self.last_norm = nn.BatchNorm1d(last)
        self.head = nn.Linear(last, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.position(self.norm(self.patch(images)))
        for stage in self.stages:
            x = stage(x)
        return self.head(self.last_norm(x.mean((2, 3))))


class Stage(nn.Module):
    """A transition, but in the first stage, and blocks: ``(N, C, T', T')`` to the stage's own shape."""

    def __init__(self, shape: BinaryViTShape, stage: int) -> None:
        super().__init__()
        width = shape.width << stage
        self.transition = Transition(width // 2, shape.grid(stage)) if stage else nn.Identity()
        self.blocks = nn.ModuleList(Block(shape, stage) for _ in range(shape.depths[stage]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.transition(x)
        grid = x.shape[2:]
        tokens = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.transpose(1, 2).unflatten(2, grid)


class Transition(nn.Module):
    """``RPReLU(BN(conv(y)) + pool(y), twice) + position`` with ``y = BN(x)``; conv and pool are 2x2, of stride 2."""

    def __init__(self, width: int, grid: int) -> None:
        super().__init__()
        self.before = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, 2 * width, 2, 2, bias=False)
        self.norm = nn.BatchNorm2d(2 * width)
        self.act = RPReLU(2 * width, self.conv.weight)
        self.position = Position(grid, 2 * width, self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        pooled = F.avg_pool2d(y, 2)
        return self.position(self.act(self.norm(self.conv(y)) + torch.cat([pooled, pooled], 1)))


class Block(nn.Module):
    """Attention and MLP of tokens ``(N, T, C)``, T a square number."""

    def __init__(self, shape: BinaryViTShape, stage: int) -> None:
        super().__init__()
        width = shape.width << stage
        inner = width * shape.ratios[stage]
        self.norm1, self.norm2 = TokenNorm(width), TokenNorm(width)
        self.attention = Attention(width, 1 << stage, shape.reductions[stage], shape.form == "binary")
        self.up, self.down = Unit(width, inner), Unit(inner, width)
        like = self.norm1.weight
        self.scale1, self.scale2 = LayerScale(width, 0.1, like), LayerScale(width, 0.1, like)
        self.pools = nn.ModuleList(LayerScale(width, 0.0, like) for _ in _POOLS)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale1(self.attention(self.norm1(x)))
        y = self.norm2(x)
        grid = as_grid(y)
        x = x + self.scale2(self.down(self.up(y)))
        for size, scale in zip(_POOLS, self.pools, strict=True):
            pooled = F.avg_pool2d(grid, size, 1, (size[0] // 2, size[1] // 2))
            x = x + scale(pooled.flatten(2).transpose(1, 2))
        return x


class LayerScale(HalfParameters):
    """``scale * x + bias`` of each channel, the last axis; the bias starts at zero."""

    def __init__(self, channels: int, start: float, like: Tensor) -> None:
        super().__init__()
        self._start = start
        self.scale = nn.Parameter(torch.full((channels,), start, dtype=like.dtype, device=like.device))
        self.bias = nn.Parameter(torch.zeros(channels, dtype=like.dtype, device=like.device))

    def reset_parameters(self) -> None:
        nn.init.constant_(self.scale, self._start)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x * half(self.scale) + half(self.bias)


class Position(HalfParameters):
    """Adds a learned number for each place and channel to images ``(N, C, grid, grid)``."""

    def __init__(self, grid: int, channels: int, like: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(channels, grid, grid, dtype=like.dtype, device=like.device))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.table)

    def forward(self, x: Tensor) -> Tensor:
        return x + half(self.table)


def load_binary_vit(request: Request) -> LoadedModel:
    """An untrained :class:`BinaryViT`: the name is its classes, and then what is not as usual, by commas.

    Raises:
        ModelError: anything else.
    """
    try:
        classes, given = read_name(request.name, BinaryViTShape.__dataclass_fields__)
        values: dict[str, Any] = {field: _read(field, text) for field, text in given.items()}
        shape = BinaryViTShape(**values)
        model = BinaryViT(int(classes), shape)
    except (ValueError, ConfigError) as error:
        raise ModelError(f"binary-vit:{request.name}: {error}; give {EXAMPLE}") from error
    return LoadedModel(model, Preprocessing(shape.size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def _read(name: str, text: str) -> int | str | tuple[int, ...]:
    if name == "form":
        return text
    return tuple(map(int, text.split("-"))) if name in ("depths", "ratios", "reductions") else int(text)
