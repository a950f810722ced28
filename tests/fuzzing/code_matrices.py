"""Matrices of codes, with their levels, that coders one by one are tried on."""

from __future__ import annotations

import torch
from torch import Tensor

from corank.codecs import Trellis
from corank.rounding import Dependent
from corank.statistics import Gram

__all__ = ["matrices", "path"]


def path(rows: int, columns: int, states: int) -> tuple[Tensor, int]:
    """Codes that are paths of a trellis, and their levels."""
    generator, gram = torch.Generator().manual_seed(rows), Gram(1, columns)
    gram.update(torch.eye(columns)[None], columns)
    weight, codec = torch.randn(rows, columns, generator=generator), Trellis(6, 2.0, states)
    return Dependent()(weight, codec.fit(weight), {Gram: gram}), 64


def matrices() -> dict[str, tuple[Tensor, int]]:
    generator = torch.Generator().manual_seed(5)
    wide = (torch.randn(9, 18, generator=generator) * 40 + 128).long().clamp(0, 255)
    return {
        "path of four": path(12, 9, 4),
        "path of eight": path(9, 18, 8),
        "eight bits": (wide, 256),
        "large": (torch.randint(0, 65536, (3, 10), generator=generator), 65536),
        "one column": (torch.randint(0, 5, (60, 1), generator=generator), 5),
        "the same": (torch.full((4, 25), 3), 4),
    }
