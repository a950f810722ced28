"""HAM: the published stream and its size by formula, and any column alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.ham import canonical_dictionary, ham, ham_stream_bits, index_width
from torch import Tensor

from corank.errors import ConfigError
from corank.storage.coders import Ham, entropy
from corank.storage.coders.ham import dictionary_bits, read_sizes, stream_bits, word_of
from corank.storage.coders.prefix_code import read_code


def matrices() -> list[tuple[Tensor, int]]:
    """``W (n, m)`` of the paper."""
    generator = torch.Generator().manual_seed(5)
    bell = (torch.randn(60, 23, generator=generator) * 2 + 8).round().long().clamp(0, 15)
    sparse = torch.where(torch.rand(120, 31, generator=generator) < 0.1, torch.randint(1, 32, (120, 31)), 0)
    return [(bell, 16), (sparse, 32), (torch.randint(0, 2, (5, 7), generator=generator), 2), (bell[:1], 16)]


def parts(data: bytes, columns: int, levels: int) -> tuple[np.ndarray, np.ndarray, bytes]:
    code, at = read_code(data, levels)
    sizes, at = read_sizes(data, at, columns)
    return code.lengths, sizes, data[at:]


@pytest.mark.parametrize(("matrix", "levels"), matrices())
def test_stream_and_size_are_the_published(matrix: Tensor, levels: int) -> None:
    stream, words = ham(matrix.tolist())
    data = Ham().encode(matrix.T, levels)
    lengths, sizes, found = parts(data, matrix.shape[1], levels)
    assert len(found) * 8 == ham_stream_bits(matrix.tolist())
    counts = np.bincount(matrix.flatten().numpy(), minlength=levels)
    assert stream_bits(counts, lengths) == ham_stream_bits(matrix.tolist())
    if all(len(word) == lengths[symbol] for symbol, word in words.items()):  # else another code of the same size
        assert found == stream
    by_column = [sum(int(lengths[symbol]) for symbol in column) for column in matrix.T.tolist()]
    assert sizes.tolist() == by_column


@pytest.mark.parametrize(("matrix", "levels"), matrices())
def test_entropy_bounds_the_mean_word(matrix: Tensor, levels: int) -> None:
    lengths, sizes, _ = parts(Ham().encode(matrix.T, levels), matrix.shape[1], levels)
    mean = sizes.sum() / matrix.numel()
    assert entropy(matrix, levels) - 1e-9 <= mean < entropy(matrix, levels) + 1
    assert (0.5 ** lengths[lengths > 0].astype(float)).sum() == 1


@pytest.mark.parametrize(("matrix", "levels"), matrices())
def test_every_column_alone(matrix: Tensor, levels: int) -> None:
    data, shape = Ham().encode(matrix.T, levels), (matrix.shape[1], matrix.shape[0])
    decoded = Ham().decode(data, shape, levels)
    for column in range(matrix.shape[1]):
        alone = Ham().row(data, column, shape, levels)
        assert torch.equal(alone, decoded[column])
        assert torch.equal(alone.long(), matrix[:, column])
    for column in (-1, matrix.shape[1]):
        with pytest.raises(ConfigError, match=f"row {column} of"):
            Ham().row(data, column, shape, levels)


def test_product_column_by_column() -> None:
    matrix, levels = matrices()[0]
    values, inputs = torch.arange(levels) - 8, torch.randint(-9, 9, (3, matrix.shape[0]))
    data, shape = Ham().encode(matrix.T, levels), (matrix.shape[1], matrix.shape[0])
    columns = [inputs @ values[Ham().row(data, column, shape, levels).long()] for column in range(shape[0])]
    assert torch.equal(torch.stack(columns, 1), inputs @ values[matrix])


@pytest.mark.parametrize(("values", "longest", "prefix"), [(32, 9, 8), (256, 12, 8), (2, 1, 1), (70000, 20, 10)])
def test_published_dictionary(values: int, longest: int, prefix: int) -> None:
    assert dictionary_bits(values, longest, prefix) == canonical_dictionary(values, longest, prefix)


def test_index_width() -> None:
    for largest in (1, 255, 256, 65535, 65536):
        assert word_of(largest) == index_width(largest)
    assert [word_of(largest) for largest in (0, 255, 256, 65535, 65536)] == [8, 8, 16, 16, 32]
