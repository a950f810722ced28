"""Factors in a few bits: close to the factors, and exactly as large as promised."""

from __future__ import annotations

import pytest
import torch

from corank.adapters import bits_per_rank, code_factors, decompose
from corank.errors import ConfigError
from corank.storage.bits import pack

SHAPE = (3, 6, 10)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("rank", [1, 2, 6])
def test_size_is_what_a_rank_is_said_to_cost(bits: int, rank: int) -> None:
    coded = code_factors(decompose(torch.randn(SHAPE), "svd", {}).truncate(rank), bits)
    assert coded.rank == rank and coded.groups == 3
    sides = (coded.left, coded.right)
    stored = sum(side.codes.numel() * bits + side.codebook.size_bits for side in sides)
    assert stored == rank * bits_per_rank(SHAPE, bits)
    assert bits_per_rank(SHAPE, bits) == 3 * ((6 + 10) * bits + 2 * 16)
    assert pack(coded.left.codes, bits).numel() * 8 - 3 * rank * 6 * bits in range(8)


@pytest.mark.parametrize(("bits", "error"), [(8, 0.01), (4, 0.15)])
def test_product_is_close(bits: int, error: float) -> None:
    adapter = decompose(torch.randn(SHAPE), "svd", {}).truncate(3)
    coded = code_factors(adapter, bits)
    lost = (coded.product() - adapter.product()).norm() / adapter.product().norm()
    assert coded.product().shape == (18, 10)
    assert float(lost) < error


def test_each_direction_has_its_own_scale() -> None:
    adapter = decompose(torch.randn(1, 6, 10) * torch.logspace(-3, 1, 6)[:, None], "svd", {})
    coded = code_factors(adapter, 8)
    right = coded.right.decode().reshape(1, 6, 10)
    relative = (right - adapter.right).norm(dim=2) / adapter.right.norm(dim=2)
    assert float(relative.max()) < 0.01


def test_truncating_before_or_after_coding_is_the_same() -> None:
    adapter = decompose(torch.randn(1, 6, 10), "svd", {})
    whole, part = code_factors(adapter, 4), code_factors(adapter.truncate(2), 4)
    assert torch.equal(whole.left.codes[:2], part.left.codes)
    assert torch.equal(whole.right.decode()[:2], part.right.decode())


@pytest.mark.parametrize("bits", [0, 1, 9])
def test_bits_out_of_range(bits: int) -> None:
    with pytest.raises(ConfigError, match="2 to 8"):
        code_factors(decompose(torch.randn(SHAPE), "svd", {}), bits)
    with pytest.raises(ConfigError, match="2 to 8"):
        bits_per_rank(SHAPE, bits)
