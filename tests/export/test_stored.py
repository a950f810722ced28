"""The forms of a coded weight in other runtimes: equal to it, and the smallest there is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

import corank
from corank.codecs import Codebook, ScalarCodebook, Uniform
from corank.coded_weight import CodedWeight
from corank.export.stored import Kind, StoredWeight, stored_weight

ONNX: tuple[Kind, ...] = ((2, True), (2, False), (4, True), (4, False), (8, True), (8, False))
ANY: tuple[Kind, ...] = ((1, False), (2, False), (3, False), (4, False), (8, False))
KINDS_OF_UNIFORM = ("plain", "symmetric", "half")


def weight() -> Tensor:
    """Six rows of different scale, one never negative."""
    matrix = torch.randn(6, 40) * torch.rand(6, 1)
    matrix[1] = matrix[1].abs()
    return matrix


def coded(codec: Uniform) -> CodedWeight:
    codebook = codec.fit(weight())
    return CodedWeight(codebook.nearest(weight()), codebook)


def of_levels(levels: list[float], group: int = 0, offset: float = 0.0) -> CodedWeight:
    groups = 1 if not group else -(-40 // group)
    codebook = ScalarCodebook(
        torch.tensor(levels), torch.rand(6, groups) + 0.5, torch.full((6, groups), offset), group or 40
    )
    return CodedWeight(torch.randint(0, len(levels), (6, 40), dtype=torch.uint8), codebook)


@pytest.mark.parametrize("group", [0, 16, -1])
@pytest.mark.parametrize(
    ("bits", "kind"), [(bits, kind) for bits in range(1, 9) for kind in KINDS_OF_UNIFORM if (bits, kind) != (8, "half")]
)
def test_uniform_codes_are_kept_bit_for_bit(bits: int, kind: str, group: int) -> None:
    codec = Uniform(bits=bits, symmetric=kind == "symmetric", half=kind == "half", group=group, range="mse")
    one = coded(codec)
    for kinds in (ONNX, ANY):
        form = stored_weight(one, kinds)
        assert torch.equal(form.decode(), one.decode())
        assert form.table is None
        if kind != "half":
            assert form.bits == min(width for width, _ in kinds if width >= bits)


@pytest.mark.parametrize(("bits", "doubled"), [(1, True), (2, False), (3, True), (4, False), (5, True)])
def test_zero_points_between_codes(bits: int, doubled: bool) -> None:
    """Codes are doubled where that fits their width; else the zero points are floats."""
    one = coded(Uniform(bits=bits, half=True))
    codebook = one.codebook
    assert isinstance(codebook, ScalarCodebook)
    offset = torch.full_like(codebook.offset, 0.5)
    offset[1] = 1.0
    one = replace(one, codebook=replace(codebook, offset=offset))
    form = stored_weight(one, ONNX)
    assert torch.equal(form.decode(), one.decode()) and form.is_affine == doubled
    assert int(form.codes.max()) - int(form.codes.min()) == (2**bits - 1) * (2 if doubled else 1)


def test_short_rows_are_doubled_where_float_zero_points_cost_more() -> None:
    zero = torch.full((50, 1), 1.5)
    zero[0] = 1.0
    codebook = ScalarCodebook(torch.arange(4.0), torch.ones(50, 1), zero, 5, 3, 0.5)
    one = CodedWeight(torch.randint(0, 4, (50, 5), dtype=torch.uint8), codebook)
    form = stored_weight(one, ONNX)
    assert form.bits == 4 and form.is_affine and torch.equal(form.decode(), one.decode())


@pytest.mark.parametrize("group", [0, 16])
@pytest.mark.parametrize(
    ("levels", "bits", "looked_up"),
    [
        ([-1.0, 1.0], 2, False),
        ([-1.0, 0.0, 1.0], 2, False),
        ([-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0], 4, False),
        ([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0], 4, False),
        ([-64.0, -16.0, -4.0, -1.0, 0.0, 1.0, 4.0, 16.0, 64.0], 4, True),
        ([-1.3, -0.4, 0.1, 0.9], 2, True),
    ],
)
def test_other_levels(levels: list[float], bits: int, looked_up: bool, group: int) -> None:
    for offset in (0.0, 0.3):
        one = of_levels(levels, group, offset)
        form = stored_weight(one, ONNX)
        assert torch.allclose(form.decode(), one.decode(), rtol=1e-6, atol=1e-7)
        assert form.bits == bits
        if not offset:
            assert (form.table is not None) == looked_up


@dataclass(frozen=True)
class _Tables(Codebook):
    """A table for each row, or (what no runtime holds) a value that depends on the column."""

    tables: Tensor
    by_column: bool = False

    @property
    def code_bits(self) -> int:
        return 2

    @property
    def size(self) -> int:
        return self.tables.shape[1]

    @property
    def size_bits(self) -> int:
        return 0

    def values(self, codes: Tensor) -> Tensor:
        found = self.tables.gather(1, codes.long())
        return found * torch.arange(1.0, codes.shape[1] + 1) if self.by_column else found

    def nearest(self, weight: Tensor) -> Tensor:
        raise NotImplementedError

    def neighbours(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def columns(self, index: Tensor) -> Codebook:
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        raise NotImplementedError


@pytest.mark.parametrize("size", [3, 4])
def test_any_codebook_with_a_table_for_each_row(size: int) -> None:
    codes = torch.randint(0, size, (6, 40), dtype=torch.uint8)
    one = CodedWeight(codes, _Tables(torch.randn(6, size)))
    form = stored_weight(one, ONNX)
    assert torch.equal(form.decode(), one.decode()) and form.bits == 2
    alike = CodedWeight(codes, _Tables(torch.randn(1, size).repeat(6, 1)))
    form = stored_weight(alike, ONNX)
    assert form.table is not None and form.table.dim() == 1 and torch.equal(form.decode(), alike.decode())


def test_values_that_depend_on_the_column_become_a_table_of_a_row() -> None:
    tables = torch.tensor([1.0, 2.0, 4.0, 8.0]).repeat(6, 1)
    codes = torch.randint(0, 4, (6, 8), dtype=torch.uint8)
    one = CodedWeight(codes, _Tables(tables, by_column=True))
    form = stored_weight(one, ONNX)
    assert torch.equal(form.decode(), one.decode()) and form.bits == 4


def test_too_many_values_are_refused() -> None:
    codes = torch.randint(0, 4, (6, 400), dtype=torch.uint8)
    with pytest.raises(corank.ModelError, match=r"_Tables cannot be kept in 2, 4, 8 bits.*corank\.Uniform"):
        stored_weight(CodedWeight(codes, _Tables(torch.randn(6, 4), by_column=True)), ONNX)


def test_decode_is_what_it_says() -> None:
    form = StoredWeight(
        codes=torch.tensor([[0, 1, 2]], dtype=torch.int16),
        bits=2,
        signed=False,
        scale=torch.tensor([[2.0, 3.0]]),
        group_size=2,
        zero=torch.tensor([[1.0, 0.5]]),
    )
    assert form.decode().tolist() == [[-2.0, 0.0, 4.5]] and not form.is_affine
    assert form.size_bits == 3 * 2 + 2 * 16 + 2 * 16
