"""Carried codes: what is learned is taken along, rows that go together are told, alike without the kernel, damage."""

from __future__ import annotations

import random

import pytest
import torch
from fuzzing.code_matrices import matrices, path
from torch import Tensor

from corank.errors import ArtifactError
from corank.kernels import carried as kernel
from corank.kernels.adaptive import has_kernel
from corank.kernels.carried import LearnedCodes
from corank.storage.coders import Adaptive, Carried, entropy

Matrix = tuple[Tensor, int]


def more() -> dict[str, Matrix]:
    """Those of adaptive codes, and rows that go together, more of them than are looked back at; a row alone."""
    generator = torch.Generator().manual_seed(7)
    mixed = torch.randn(90, 4, generator=generator) @ torch.randn(4, 24, generator=generator)
    return {
        **matrices(),
        "rows alike": ((mixed + 8).round().clamp(0, 15).to(torch.uint8), 16),
        "a row": (torch.randint(0, 9, (1, 70), generator=generator).to(torch.uint8), 9),
        "two levels": (torch.randint(0, 2, (9, 20), generator=generator).to(torch.uint8), 2),
    }


def written(one_after_another: list[Matrix]) -> list[bytes]:
    learned = LearnedCodes()
    return [Carried().encode_after(learned, symbols, levels) for symbols, levels in one_after_another]


def read(coded: list[bytes], like: list[Matrix]) -> list[object]:
    """Each matrix, or what was said of it; after what was said nothing is read."""
    learned, found = LearnedCodes(), list[object]()
    for data, (symbols, levels) in zip(coded, like, strict=True):
        try:
            shape = (symbols.shape[0], symbols.shape[1])
            found.append(Carried().decode_after(learned, data, shape, levels).tolist())
        except ArtifactError as error:
            return [*found, str(error)]
    return found


def test_the_kernel_and_python_write_and_read_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_kernel():
        pytest.skip("no C++ compiler")
    given = list(more().values())
    coded = written(given)
    damaged = [[random.Random(7 * i + j).randbytes(len(one)) for j, one in enumerate(coded)] for i in range(3)]
    damaged += [[one[:2] + random.Random(i).randbytes(len(one) - 2) for one in coded] for i in range(3)]
    by_kernel = [read(bytes_of, given) for bytes_of in [coded, *damaged]]
    monkeypatch.setattr(kernel, "kernel", lambda: None)
    assert written(given) == coded
    assert [read(bytes_of, given) for bytes_of in [coded, *damaged]] == by_kernel
    assert by_kernel[0] == [symbols.tolist() for symbols, _ in given]


def test_what_one_matrix_teaches_makes_the_next_smaller() -> None:
    torch.manual_seed(0)
    drawn = [(torch.randn(16, 36) * 1.5 + 8).round().clamp(0, 15).to(torch.uint8) for _ in range(8)]
    alone = sum(len(Carried().encode(symbols, 16)) for symbols in drawn)
    assert sum(map(len, written([(symbols, 16) for symbols in drawn]))) < 0.98 * alone


def test_a_copy_learns_apart() -> None:
    symbols, levels = more()["rows alike"]
    learned = LearnedCodes()
    Carried().encode_after(learned, symbols, levels)
    apart = learned.copy()
    twice = [Carried().encode_after(apart, symbols, levels) for _ in range(2)]
    assert Carried().encode_after(learned, symbols, levels) == twice[0]
    assert Carried().encode_after(learned, symbols, levels) == twice[1]


def test_rows_that_go_together_are_told() -> None:
    torch.manual_seed(1)
    rows = torch.randn(192, 6) @ torch.randn(6, 160) * 0.6 + torch.randn(192, 160) * 0.8
    symbols = (rows + 16).round().clamp(0, 31).to(torch.uint8)
    found = len(Carried().encode(symbols, 32))
    assert found < 0.93 * len(Adaptive().encode(symbols, 32))
    assert 8 * found < 0.93 * entropy(symbols, 32) * symbols.numel()


@pytest.mark.parametrize("states", [4, 8])
def test_paths_of_a_trellis_are_told_their_grids(states: int) -> None:
    codes, levels = path(128, 60, states)
    assert len(Carried().encode(codes, levels)) < 1.01 * len(Adaptive().encode(codes, levels))


def test_unsound_bytes_are_refused() -> None:
    for codes, levels in (path(12, 18, 4), more()["rows alike"]):
        data, shape = Carried().encode(codes, levels), (codes.shape[0], codes.shape[1])
        for bad in (b"", b"\xff" + data[1:], bytes([data[0] & 240 | 9]) + data[1:], data + b"\0", data + b"\1\2\3\4"):
            with pytest.raises(ArtifactError):
                Carried().decode(bad, shape, levels)
    with pytest.raises(ArtifactError, match="places in 17 columns"):
        Carried().decode(Carried().encode(torch.zeros(4, 9, dtype=torch.uint8), 5), (12, 17), 5)
