"""Coded numbers: the same bits again, fewer bytes where numbers are alike or on a grid, and damage."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor

from corank.errors import ArtifactError
from corank.storage.coded_numbers import read_numbers, written_numbers

KINDS = {"scales": torch.float16, "float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def drawn(kind: str, count: int = 600) -> Tensor:
    values = torch.randn(count, generator=torch.Generator().manual_seed(count)) * 0.1
    return (values.abs() if kind == "scales" else values).to(KINDS[kind])


def bits(blob: Tensor) -> list[int]:
    return blob.view(torch.int16 if blob.element_size() == 2 else torch.int32).tolist()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_numbers_that_are_alike_take_fewer_bytes_and_are_the_same(kind: str) -> None:
    blob, counts = drawn(kind), [100, 0, 499, 1]
    data = written_numbers(kind, blob, counts)
    assert data is not None and data.numel() < 0.92 * blob.numel() * blob.element_size()
    assert bits(read_numbers(kind, data, counts)) == bits(blob)


def test_numbers_of_a_grid_take_the_bits_they_have() -> None:
    blob = torch.cat([(drawn("float16", 400).float() * scale * 64).round() / scale / 64 for scale in (4, 8)])
    blob = (blob + 0.0).half()
    data = written_numbers("float16", blob, [400, 400])
    assert data is not None and data.numel() < 0.55 * 2 * 800
    assert bits(read_numbers("float16", data, [400, 400])) == bits(blob)


def test_extreme_numbers() -> None:
    every = torch.arange(0, 1 << 15, 7, dtype=torch.int16).view(torch.float16)  # infinite ones, and those that are none
    for blob in (every, torch.full((300,), 65504.0).half(), torch.full((300,), -(2.0**-24)).half(), torch.zeros(50)):
        kind = str(blob.dtype).removeprefix("torch.")
        data = written_numbers(kind, blob, [blob.numel()])
        if data is None:
            assert blob is every  # even ones take no fewer bytes
        else:
            assert bits(read_numbers(kind, data, [blob.numel()])) == bits(blob)
    both = torch.cat([every[-30:], torch.ones(200).half()])
    data = written_numbers("float16", both, [230])
    assert data is not None and bits(read_numbers("float16", data, [230])) == bits(both)


def test_what_is_not_coded() -> None:
    assert written_numbers("float16", torch.tensor([0.5, -0.0] * 90).half(), [180]) is None
    assert written_numbers("float16", torch.zeros(0).half(), []) is None
    assert written_numbers("int64", torch.ones(90, dtype=torch.int64), [90]) is None


def test_damage_is_refused_or_gives_numbers() -> None:
    blob, counts = drawn("scales"), [300, 300]
    data = written_numbers("scales", blob, counts)
    assert data is not None
    said = set[str]()
    for seed in range(60):
        draw = random.Random(seed)
        given = bytearray(data.numpy().tobytes())
        for _ in range(draw.randint(1, 9)):
            given[draw.randrange(len(given))] ^= 1 << draw.randrange(8)
        cut = given[: draw.randrange(len(given))] if seed % 3 == 0 else given
        try:
            found = read_numbers("scales", torch.from_numpy(np.frombuffer(bytes(cut), np.uint8).copy()), counts)
            assert found.shape == blob.shape and found.dtype == torch.float16
        except ArtifactError as error:
            said.add(str(error)[:20])
    assert said
    with pytest.raises(ArtifactError, match="cannot be"):
        read_numbers("scales", data, [1 << 40])
    with pytest.raises(ArtifactError, match="cannot be"):
        read_numbers("int64", data, counts)
