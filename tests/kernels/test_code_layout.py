"""Codes of every width stand packed, and come back."""

from __future__ import annotations

import pytest
import torch

from corank.kernels.code_layout import LANES, SPARE_BYTES, laid_out, row_bytes, rows_laid_out


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("columns", [1, 16, 17, 130, 513, 1030])
def test_codes_come_back(bits: int, columns: int) -> None:
    codes = torch.randint(1 << bits, (5, columns), dtype=torch.uint8)
    packed = laid_out(codes, bits)
    assert packed.numel() == 5 * row_bytes(columns, bits) + SPARE_BYTES
    index = torch.tensor([4, 0, 4])
    assert torch.equal(rows_laid_out(packed, index, columns, bits), codes[index])


@pytest.mark.parametrize("bits", range(1, 9))
def test_a_row_takes_its_bits(bits: int) -> None:
    assert all(row_bytes(columns, bits) == columns * bits // 8 for columns in (128, 640, 4096, 11008))
    for columns in range(1, 600):
        assert 0 <= row_bytes(columns, bits) - columns * bits / 8 < LANES * (bits / 8 + 1)


def test_the_first_code_of_a_lane_has_the_lowest_bits() -> None:
    codes = torch.zeros(1, 128, dtype=torch.uint8)
    codes[0, 3], codes[0, 16 + 3] = 5, 9  # the fourth lane's first and second
    assert laid_out(codes, 4)[:16].tolist() == [0] * 12 + [5 + 16 * 9, 0, 0, 0]
