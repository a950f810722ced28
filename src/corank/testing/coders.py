"""What every coder of symbols must do."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from corank.errors import ArtifactError, ConfigError
from corank.storage.coders import SymbolCoder

__all__ = ["check_coder"]


def check_coder(coder: SymbolCoder) -> None:
    """Codes matrices of many kinds and checks what :class:`~corank.storage.coders.SymbolCoder` promises.

    Damaged bytes may give other symbols, never symbols that do not exist, and no error but ArtifactError.

    Raises:
        AssertionError: naming the matrix and what does not hold.
    """
    hash(coder)
    draw = random.Random(0)
    for name, (symbols, levels) in _matrices().items():
        what, shape = f"{coder}, {name}", (symbols.shape[0], symbols.shape[1])
        before = symbols.clone()
        data = coder.encode(symbols, levels)
        assert isinstance(data, bytes), f"{what}: encode() gives {type(data).__name__}"
        assert torch.equal(symbols, before), f"{what}: encode() changed the symbols"
        assert data == coder.encode(symbols, levels), f"{what}: encoding twice gives two results"
        _check_decoded(what, coder.decode(data, shape, levels), symbols, levels)
        damaged = [data + b"\0", data[:-1], data[: len(data) // 2], draw.randbytes(len(data)), b"\xff" * len(data)]
        damaged += [_flipped(data, draw) for _ in range(20) if data]
        for other in damaged:
            if other != data:
                _check_damaged(what, coder, other, shape, levels)
    _check_refusals(coder)


def _matrices() -> dict[str, tuple[Tensor, int]]:
    generator = torch.Generator().manual_seed(1)

    def uniform(rows: int, columns: int, levels: int) -> tuple[Tensor, int]:
        return torch.randint(0, levels, (rows, columns), generator=generator), levels

    bell = (torch.randn(30, 70, generator=generator) * 2 + 8).round().clamp(0, 15).to(torch.uint8)
    sparse = torch.where(torch.rand(40, 90, generator=generator) < 0.03, uniform(40, 90, 32)[0], 16)
    doubling = torch.repeat_interleave(torch.arange(12), 2 ** torch.arange(12)).reshape(-1, 9)
    return {
        "no rows": (torch.zeros(0, 5, dtype=torch.uint8), 4),
        "no columns": (torch.zeros(5, 0, dtype=torch.uint8), 4),
        "one symbol": (torch.full((1, 1), 3, dtype=torch.uint8), 4),
        "one level": (torch.zeros(3, 50, dtype=torch.uint8), 1),
        "all the same": (torch.full((20, 90), 5, dtype=torch.int16), 8),
        "all the same but one": (torch.eye(1, 3000, dtype=torch.int64), 16),
        "two levels": uniform(17, 33, 2),
        "three levels": uniform(5, 77, 3),
        "four bits, like weights": (bell, 16),
        "eight bits, even": uniform(60, 80, 256),
        "sparse": (sparse, 32),
        "very skewed": (doubling, 200),
        "one column": uniform(2100, 1, 7),
        "one long row": uniform(1, 3000, 5),
        "a large alphabet": uniform(10, 70, 3000),
        "the largest alphabet": uniform(4, 30, 65536),
    }


def _check_decoded(what: str, decoded: Tensor, symbols: Tensor, levels: int) -> None:
    expected = torch.uint8 if levels <= 256 else torch.int32
    assert decoded.dtype == expected, f"{what}: decode() gives {decoded.dtype}, not {expected}"
    assert decoded.shape == symbols.shape, f"{what}: decode() gives the shape {tuple(decoded.shape)}"
    assert torch.equal(decoded.long(), symbols.long()), f"{what}: decode() gives other symbols"


def _check_damaged(what: str, coder: SymbolCoder, data: bytes, shape: tuple[int, int], levels: int) -> None:
    try:
        decoded = coder.decode(data, shape, levels)
    except ArtifactError:
        return
    except Exception as error:
        raise AssertionError(f"{what}: damaged bytes give {type(error).__name__}, not ArtifactError") from error
    assert tuple(decoded.shape) == shape, f"{what}: damaged bytes give another shape"
    assert not decoded.numel() or 0 <= int(decoded.min()) <= int(decoded.max()) < levels, (
        f"{what}: damaged bytes give symbols that do not exist"
    )


def _check_refusals(coder: SymbolCoder) -> None:
    bad = {
        "a symbol too large": (torch.tensor([[0, 4]]), 4),
        "a negative symbol": (torch.tensor([[0, -1]]), 4),
        "float symbols": (torch.ones(2, 2), 4),
        "no matrix": (torch.ones(4, dtype=torch.uint8), 4),
        "no levels": (torch.zeros(1, 1, dtype=torch.uint8), 0),
        "too many levels": (torch.zeros(1, 1, dtype=torch.uint8), 65537),
    }
    for name, (symbols, levels) in bad.items():
        try:
            coder.encode(symbols, levels)
        except ConfigError:
            continue
        raise AssertionError(f"{coder}: {name} was taken")
    for shape, levels in (((-1, 4), 4), ((2, 2), 0)):
        try:
            coder.decode(b"", shape, levels)
        except ConfigError:
            continue
        raise AssertionError(f"{coder}: a shape {shape} with {levels} levels was taken")


def _flipped(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :]
