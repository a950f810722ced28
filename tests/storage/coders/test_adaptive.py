"""Adaptive codes: near what their decisions take, below the entropy where codes tell each other, alike without the
kernel, and damage."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from fuzzing.code_matrices import matrices, path
from torch import Tensor

from corank.codecs.trellis import counted
from corank.errors import ArtifactError
from corank.kernels import adaptive as kernel
from corank.kernels import adaptive_walk
from corank.kernels.trellis import MACHINES, visited_states
from corank.storage.coders import Adaptive, Rans, entropy


def grid_entropy(codes: Tensor, levels: int, states: int) -> float:
    """Bits of a code that is told the grid, by counting."""
    values, most = codes.numpy().astype(np.int32) - (levels // 2 - 1), levels // 2 - 1
    visited = visited_states(values, states)
    assert visited is not None
    counts = counted(values, visited, states, most)
    shares = counts / counts.sum(1, keepdims=True)
    return -float((counts * np.log2(np.maximum(shares, 1e-30))).sum()) / codes.numel()


@pytest.mark.parametrize("states", sorted(MACHINES))
def test_paths_take_the_entropy_in_their_grid(states: int) -> None:
    codes, levels = path(128, 60, states)
    data = Adaptive().encode(codes, levels)
    assert data[0] & 15 == 1 + sorted(MACHINES).index(states)
    assert torch.equal(Adaptive().decode(data, (128, 60), levels), codes)
    bits, least = 8 * len(data) / codes.numel(), grid_entropy(codes, levels, states)
    assert bits < 1.02 * least + 0.02
    assert bits < entropy(codes, levels) - 0.7  # of both grids together, nearly one bit more
    assert Adaptive.knows_path(codes, levels) and not Adaptive.knows_path(codes + (codes == 31).to(torch.uint8), levels)


@pytest.mark.parametrize("spread", [0.3, 1.0, 8.0])
def test_codes_that_tell_each_other_nothing_take_their_entropy(spread: float) -> None:
    symbols = (torch.randn(200, 288) * spread + 32).round().clamp(0, 63).to(torch.uint8)
    bits = 8 * len(Adaptive().encode(symbols, 64)) / symbols.numel()
    assert entropy(symbols, 64) - 0.01 < bits < 1.015 * entropy(symbols, 64) + 0.01


def test_rows_columns_and_channels_are_contexts() -> None:
    torch.manual_seed(0)
    sizes = torch.rand(40, 1) ** 2 * torch.rand(1, 32).repeat_interleave(9, 1) ** 2 * 9
    symbols = (torch.randn(40, 288) * sizes + 15).round().clamp(0, 31).to(torch.uint8)
    found = len(Adaptive().encode(symbols, 32))
    assert 8 * found < 0.95 * entropy(symbols, 32) * symbols.numel()
    assert found < len(Rans().encode(symbols, 32))


@pytest.mark.parametrize("name", list(matrices()))
def test_the_kernel_and_python_write_and_read_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernel.has_kernel():
        pytest.skip("no C++ compiler")
    symbols, levels = matrices()[name]
    shape = (symbols.shape[0], symbols.shape[1])
    data = Adaptive().encode(symbols, levels)
    damaged = [data[:1] + random.Random(number).randbytes(len(data)) for number in range(4)]
    by_kernel = [outcome(other, shape, levels) for other in [data, *damaged]]
    monkeypatch.setattr(kernel, "kernel", lambda: None)
    assert Adaptive().encode(symbols, levels) == data
    assert [outcome(other, shape, levels) for other in [data, *damaged]] == by_kernel
    assert by_kernel[0] == symbols.tolist()


def outcome(data: bytes, shape: tuple[int, int], levels: int) -> object:
    try:
        return Adaptive().decode(data, shape, levels).tolist()
    except ArtifactError as error:
        return str(error)


def test_an_arithmetic_code_takes_what_its_chances_say() -> None:
    draw = random.Random(0)
    decisions = [(chance, draw.random() * 65536 < chance) for chance in (draw.randint(1, 65535) for _ in range(4000))]
    writer = adaptive_walk.ArithmeticWriter()
    for chance, answer in decisions:
        writer.step(chance, answer)
    data = writer.closed()
    ideal = -sum(np.log2((chance if answer else 65536 - chance) / 65536) for chance, answer in decisions) / 8
    assert ideal - 1 <= len(data) <= 1.002 * ideal + 4
    reader = adaptive_walk.ArithmeticReader(data)
    assert [reader.step(chance, False) for chance, _ in decisions] == [answer for _, answer in decisions]
    assert reader.ended and not adaptive_walk.ArithmeticReader(data + b"\1" * 9).ended


def test_unsound_bytes_are_refused() -> None:
    codes, levels = path(12, 18, 4)
    data, shape = Adaptive().encode(codes, levels), (12, 18)
    for damaged in (b"", b"\xff" + data[1:], bytes([data[0] & 240 | 9]) + data[1:], data + b"\0", data + b"\1\2\3\4"):
        with pytest.raises(ArtifactError):
            Adaptive().decode(damaged, shape, levels)
    with pytest.raises(ArtifactError, match="places in 17 columns"):
        Adaptive().decode(data, (12, 17), levels)
    plain = Adaptive().encode(torch.randint(0, 5, (12, 18)), 5)
    with pytest.raises(ArtifactError, match="around 200"):
        Adaptive().decode(plain[:1] + bytes([200]) + plain[2:], shape, 5)
