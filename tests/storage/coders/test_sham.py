"""sHAM: the published parts and their size by formula, and any column alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.ham import sham
from torch import Tensor

from corank.errors import ArtifactError, ConfigError
from corank.storage.coders import Ham, Sham
from corank.storage.coders.ham import read_sizes, stream_bits, word_of
from corank.storage.coders.prefix_code import read_code
from corank.storage.coders.sham import index_bits


def pruned(rows: int, columns: int, density: float) -> Tensor:
    """``W (n, m)`` of the paper with 31 values beside zero (16)."""
    generator = torch.Generator().manual_seed(6)
    values = (torch.randn(rows, columns, generator=generator) * 5 + 16).round().long().clamp(0, 31)
    return torch.where(torch.rand(rows, columns, generator=generator) < density, values, 16)


@pytest.mark.parametrize(("rows", "columns", "density"), [(200, 30, 0.03), (300, 9, 0.2), (20, 5, 0.5), (256, 3, 0.4)])
def test_parts_and_size_are_the_published(rows: int, columns: int, density: float) -> None:
    matrix = pruned(rows, columns, density)
    counts, places, stream, words = sham(matrix.tolist(), 16)
    data = Sham().encode(matrix.T, 32)
    kind = f"<u{word_of(rows) // 8}"
    plain = (
        (16).to_bytes(2, "little") + np.array(counts).astype(kind).tobytes() + np.array(places).astype(kind).tobytes()
    )
    assert data[: len(plain)] == plain
    assert (len(plain) - 2) * 8 == index_bits((columns, rows), len(places))
    assert index_bits((columns, rows), len(places)) == (len(places) + columns) * (8 if rows < 256 else 16)
    code, used = read_code(data[len(plain) :], 32)
    sizes, at = read_sizes(data, len(plain) + used, columns)
    assert len(data) - at == len(stream)
    others = matrix[matrix != 16]
    assert stream_bits(np.bincount(others.numpy(), minlength=32), code.lengths) == 8 * len(stream)
    if all(len(word) == code.lengths[symbol] for symbol, word in words.items()):
        assert data[at:] == stream
    assert len(sizes) == columns


def test_every_column_alone() -> None:
    matrix = pruned(90, 20, 0.1)
    matrix[:, 4] = 16  # a column without others
    data, shape = Sham().encode(matrix.T, 32), (20, 90)
    for column in range(20):
        assert torch.equal(Sham().row(data, column, shape, 32).long(), matrix[:, column])
    with pytest.raises(ConfigError, match="row 20 of"):
        Sham().row(data, 20, shape, 32)
    constant = torch.full((3, 40), 7)
    assert Sham().row(Sham().encode(constant, 8), 1, (3, 40), 8).tolist() == [7] * 40


def test_smaller_than_ham_where_little_is_left() -> None:
    for density, smaller in ((0.03, True), (0.5, False)):
        matrix = pruned(1000, 50, density)
        assert (len(Sham().encode(matrix, 32)) < len(Ham().encode(matrix, 32))) is smaller


def test_columns_that_do_not_ascend_or_exist_are_refused() -> None:
    matrix = torch.zeros(2, 100, dtype=torch.int64)
    matrix[0, 3] = matrix[0, 50] = matrix[1, 2] = 1
    data = Sham().encode(matrix, 4)
    assert data[2:7] == bytes([2, 1, 3, 50, 2])
    for columns in ([50, 3, 2], [3, 3, 2], [3, 100, 2], [3, 50, 255]):
        with pytest.raises(ArtifactError, match="ascend"):
            Sham().decode(data[:4] + bytes(columns) + data[7:], (2, 100), 4)
    with pytest.raises(ArtifactError):
        Sham().decode(data[:2] + bytes([1, 1]) + data[4:], (2, 100), 4)
    with pytest.raises(ArtifactError, match="cut off"):
        Sham().decode(data[:2] + bytes([101, 1]) + data[4:], (2, 100), 4)
