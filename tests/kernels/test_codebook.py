"""Products with packed codes: those of the composed weight, by every set of instructions and by PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from corank.errors import ConfigError, CorankWarning
from corank.kernels import (
    PackedCodes,
    codebook,
    codebook_instructions,
    codebook_linear,
    codebook_rows,
    laid_out,
)
from corank.kernels.build import NotBuiltError

ORDER = ("plain", "AVX2", "AVX512")


@pytest.fixture(params=["here", "less", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The best instructions of this processor, those of a lesser one, and none."""
    best = codebook._capability()
    if request.param == "torch":
        monkeypatch.setattr(codebook, "_library", lambda *_: None)
    elif codebook._library(4, best) is None:
        pytest.skip("no C++ compiler")
    elif request.param == "less":
        if best == "plain":
            pytest.skip("no lesser instructions than this processor's")
        monkeypatch.setattr(codebook, "_capability", lambda: ORDER[ORDER.index(best) - 1])
    yield request.param


def weight_of(bits: int, shape: tuple[int, int], kind: str, group: int = 0) -> PackedCodes:
    """Of random codes; "even" levels, "any", or each row's "own"."""
    rows, columns = shape
    codes = torch.randint(1 << bits, shape, dtype=torch.uint8)
    levels = torch.randn((rows, 1 << bits) if kind == "own" else (1 << bits,))
    if kind == "even":
        levels = torch.arange(1 << bits, dtype=torch.float32) - 2
    if kind == "own":
        return PackedCodes(laid_out(codes, bits), bits, shape, levels)
    groups = -(-columns // group) if group else 1
    scale, offset = (torch.rand(rows, groups) + 0.5).half(), torch.randint(5, (rows, groups)).half()
    return PackedCodes(laid_out(codes, bits), bits, shape, levels, scale, offset, group)


def composed(weight: PackedCodes) -> Tensor:
    return codebook._plain_rows(weight, torch.arange(weight.shape[0]))


def check(weight: PackedCodes, samples: int, dtype: torch.dtype = torch.float32) -> None:
    """Rows to the bit, products to the rounding of float32 in sums of any order."""
    expected = composed(weight)
    assert torch.equal(codebook_rows(weight, torch.arange(len(expected))), expected)
    x, bias = torch.randn(samples, weight.shape[1]).to(dtype), torch.randn(weight.shape[0])
    found = codebook_linear(x, weight, bias)
    exact = F.linear(x.double(), expected.double(), bias.double())
    sizes = F.linear(x.abs().double(), expected.abs().double(), bias.abs().double())
    assert found.dtype == dtype and found.shape == exact.shape
    rounding = 2e-6 if dtype == torch.float32 else 2e-2
    assert bool(((found.double() - exact).abs() <= rounding * sizes).all())


@pytest.mark.parametrize("kind", ["even", "any", "own"])
@pytest.mark.parametrize("bits", [2, 4, 5])  # a table, a table or steps, steps or rows; across two words
def test_a_product(way: str, bits: int, kind: str) -> None:
    for shape, samples in (((7, 70), 1), ((5, 1000), 3), ((6, 513), 6), ((1, 16), 2), ((3, 40), 0)):
        check(weight_of(bits, shape, kind), samples)


@pytest.mark.parametrize("bits", [2, 4, 5])
def test_groups_of_columns(way: str, bits: int) -> None:
    for columns, group in ((513, 64), (1024, 32), (700, 96), (64, 64)):
        check(weight_of(bits, (5, columns), "even", group), 3)
        check(weight_of(bits, (5, columns), "any", group), 1)


def test_many_inputs_and_bf16(way: str) -> None:
    weight = weight_of(4, (70, 130), "even")
    check(weight, codebook._FEW_INPUTS + 9)
    check(weight, 3, torch.bfloat16)
    check(weight, codebook._FEW_INPUTS + 9, torch.bfloat16)


def test_threads_share_rows(way: str) -> None:
    weight, x = weight_of(4, (100, 64), "any"), torch.randn(2, 64)
    alone = codebook_linear(x, weight)
    torch.set_num_threads(2)
    assert torch.equal(codebook_linear(x, weight), alone)


def test_an_input_that_is_not_finite_stays_in_its_outputs(way: str) -> None:
    x = torch.randn(2, 70)
    x[0, 3] = torch.nan
    found = codebook_linear(x, weight_of(4, (5, 70), "even"))
    assert bool(found[0].isnan().all()) and bool(found[1].isfinite().all())


def test_without_a_compiler_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise NotBuiltError("no C++ compiler was found")

    monkeypatch.setattr(codebook, "built", fails)
    for cached in (codebook._library, codebook._say):
        cached.cache_clear()
    try:
        with pytest.warns(CorankWarning, match="packed layers go without their kernel: no C"):
            assert codebook_instructions() == "torch"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check(weight_of(3, (5, 70), "any"), 2)
    finally:
        for cached in (codebook._library, codebook._say):
            cached.cache_clear()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"codes": torch.zeros(3, dtype=torch.uint8)}, "codes of 3 bytes"),
        ({"levels": torch.zeros(3)}, "levels"),
        ({"group_size": 48}, "multiples of 32"),
        ({"scale": torch.ones(5, 3).half()}, r"float16 \(5, 1\)"),
        ({"scale": torch.ones(5, 1)}, "float32"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], match: str) -> None:
    given = {"codes": laid_out(torch.zeros(5, 96, dtype=torch.uint8), 4), "bits": 4, "shape": (5, 96)}
    with pytest.raises(ConfigError, match=match):
        PackedCodes(**{**given, "levels": torch.zeros(16), **change})  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="inputs of shape"):
        codebook_linear(torch.zeros(2, 95), weight_of(4, (5, 96), "even"))
