"""DenseShift: no zero for any input, every code used, products by adding exponents."""

from __future__ import annotations

import pytest
import torch
from reference.levels import dense_shift

from corank.codecs import DenseShift
from corank.storage.bits import pack, unpack
from corank.testing import check_codec


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("group", [0, -1, 5])
@pytest.mark.parametrize("power_of_two_scale", [False, True])
def test_conformance(bits: int, group: int, power_of_two_scale: bool) -> None:
    check_codec(DenseShift(bits, group, power_of_two_scale))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_levels_are_those_of_the_decomposition(bits: int) -> None:
    expected = torch.tensor(dense_shift(bits))
    assert torch.equal(DenseShift(bits).levels() * expected.max(), expected)
    assert len(expected) == 2**bits


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("power_of_two_scale", [False, True])
@pytest.mark.parametrize("group", [0, -1, 4])
def test_no_value_is_zero_for_any_weight(bits: int, power_of_two_scale: bool, group: int) -> None:
    sparse = torch.randn(4, 12)
    sparse[1], sparse[:, :3] = 0, 0
    for weight in (torch.zeros(4, 12), sparse, sparse * 1e-9, sparse * 1e9, torch.full((4, 12), -0.0)):
        codebook = DenseShift(bits, group, power_of_two_scale).fit(weight)
        for code in range(2**bits):
            values = codebook.values(torch.full((4, 12), code, dtype=torch.uint8))
            assert bool((values != 0).all()) and bool(torch.isfinite(values).all())
            assert torch.equal(values < 0, torch.full((4, 12), code < 2 ** (bits - 1)))
        assert bool((codebook.values(codebook.nearest(weight)) != 0).all())


def test_zero_goes_to_the_smallest_positive_value() -> None:
    codebook = DenseShift(3).fit(torch.tensor([[1.0, -0.5, 0.0, 0.25]]))
    found = codebook.values(codebook.nearest(torch.zeros(1, 4)))
    assert torch.equal(found, codebook.scale.expand(1, 4) / 8)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_all_codes_survive_packing(bits: int) -> None:
    codes = torch.arange(2**bits, dtype=torch.uint8).repeat(3)
    assert torch.equal(unpack(pack(codes, bits), bits, len(codes)), codes)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_product_is_an_addition_of_exponents_and_a_sign(bits: int) -> None:
    """Bit by bit, for normal inputs; zero is masked, since an exponent cannot be added to it."""
    codebook = DenseShift(bits, power_of_two_scale=True).fit(torch.randn(5, 64))
    weight = codebook.values(codebook.nearest(torch.randn(5, 64)))
    inputs = torch.randn(5, 64)
    inputs[:, ::7] = 0
    shift = weight.abs().log2().int()
    words = inputs.view(torch.int32) + (shift << 23)
    words = torch.where(weight < 0, words ^ torch.tensor(-(2**31), dtype=torch.int32), words)
    product = torch.where(inputs == 0, 0.0, words.view(torch.float32))
    assert torch.equal(product, torch.where(inputs == 0, 0.0, inputs * weight))
