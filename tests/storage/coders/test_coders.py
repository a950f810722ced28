"""Every coder: the conformance suite, memory and time on hostile bytes, entropy."""

from __future__ import annotations

import math
import random
import tracemalloc
import zlib

import pytest
import torch

from corank.errors import ArtifactError, ConfigError
from corank.storage.coders import CODERS, SymbolCoder, entropy
from corank.testing import check_coder


@pytest.fixture(params=sorted(CODERS))
def coder(request: pytest.FixtureRequest) -> SymbolCoder:
    if request.param == "ans":
        pytest.importorskip("constriction")
    return CODERS[request.param]()


def test_conformance(coder: SymbolCoder) -> None:
    check_coder(coder)


def test_random_matrices(coder: SymbolCoder) -> None:
    draw = random.Random(3)
    for _ in range(40):
        rows, columns, levels = draw.randint(1, 60), draw.randint(1, 60), draw.choice((2, 3, 4, 8, 9, 16, 31, 256))
        spread = draw.uniform(0.05, 1) * levels
        symbols = (torch.randn(rows, columns) * spread + levels / 2).long().clamp(0, levels - 1)
        data = coder.encode(symbols, levels)
        assert torch.equal(coder.decode(data, (rows, columns), levels).long(), symbols)


def test_hostile_bytes_take_no_more_memory_than_the_shape_allows(coder: SymbolCoder) -> None:
    shape, levels = (40, 500), 16
    symbols = torch.randint(0, levels, shape)
    data = coder.encode(symbols, levels)
    bomb = zlib.compressobj(9, wbits=-15)
    draw = random.Random(1)
    given = [bomb.compress(bytes(1 << 24)) + bomb.flush(), bytes(len(data)), b"\xff" * len(data), data[:10] * 2000]
    given += [draw.randbytes(40) + data[40:], draw.randbytes(len(data))]
    for other in given:
        tracemalloc.start()
        try:
            coder.decode(other, shape, levels)
        except ArtifactError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 64 * symbols.numel() + 16 * len(other) + (3 << 20)


def test_sizes_are_near_the_entropy(coder: SymbolCoder) -> None:
    symbols = (torch.randn(300, 1000) * 2.5 + 8).round().long().clamp(0, 15)
    bits = 8 * len(coder.encode(symbols, 16)) / symbols.numel()
    least = entropy(symbols, 16)
    most = {
        "Ans": 0.01,
        "Adaptive": 0.02,
        "Carried": 0.02,
        "Rans": 0.01,
        "Huffman": 0.05,
        "Deflate": 0.06,
        "Ham": 0.1,
        "Fixed": 4 - least,
        "Sham": math.inf,
    }
    assert least - 0.01 <= bits <= least + most[type(coder).__name__]


def test_entropy() -> None:
    assert entropy(torch.tensor([[0, 1, 2, 3]]), 4) == 2.0
    assert entropy(torch.tensor([[5, 5, 5]]), 8) == 0.0
    assert entropy(torch.tensor([0, 0, 0, 1]), 2) == pytest.approx(0.75 * math.log2(4 / 3) + 0.25 * 2)


def test_the_suite_sees_a_wrong_coder() -> None:
    class Forgets(type(CODERS["fixed"]())):
        def _encode(self, values, levels):  # pyright: ignore
            return super()._encode(values * 0, levels)

    with pytest.raises(AssertionError, match="other symbols"):
        check_coder(Forgets())

    class Trusts(type(CODERS["fixed"]())):
        def _decode(self, data, shape, levels):  # pyright: ignore
            return super()._decode(data, shape, levels) if data[0] != 255 else [][0]

    with pytest.raises(AssertionError, match="IndexError"):
        check_coder(Trusts())


def test_errors_say_what_works() -> None:
    with pytest.raises(ConfigError, match="symbols of 0 to 4: with levels=4, 0 to 3 fit"):
        CODERS["fixed"]().encode(torch.tensor([[0, 4]]), 4)
    with pytest.raises(ConfigError, match=r"coder\.encode\(codes\.reshape"):
        CODERS["fixed"]().encode(torch.tensor([0, 1]), 4)
