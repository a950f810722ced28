"""Rotations: orthogonal, as the matrix says, the same everywhere, and flat."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from corank.layers.hadamard import LARGEST_ODD, Rotation, factors_of

SIZES = [1, 2, 3, 4, 12, 27, 64, 128, 172, 320, 864, 2 * 521]
LIKE = torch.zeros(1, dtype=torch.float64)


@pytest.mark.parametrize("size", SIZES)
def test_it_is_orthogonal_and_does_what_its_matrix_does(size: int) -> None:
    rotation, inputs = Rotation(size, 3, LIKE), torch.randn(2, 5, size, dtype=torch.float64)
    matrix = rotation.matrix()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(rotation(inputs), inputs @ matrix, rtol=0, atol=1e-12)
    torch.testing.assert_close(rotation.back(rotation(inputs)), inputs, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("size", "flatness"), [(64, 1.0), (4096, 1.0), (320, math.sqrt(2)), (172, math.sqrt(2))])
def test_no_number_goes_to_one_place_alone(size: int, flatness: float) -> None:
    largest = Rotation(size, 0, LIKE).matrix().abs().max()
    assert largest * math.sqrt(size) <= flatness + 1e-9


def test_the_factors_are_small() -> None:
    assert factors_of(4096) == (64, 64)
    assert factors_of(512) == (32, 16)
    assert factors_of(11008) == (16, 16, 43)
    assert factors_of(4 * 1021) == (4,)  # 1021 > LARGEST_ODD: quarters of it are rotated by themselves
    assert factors_of(1) == factors_of(1021) == () and LARGEST_ODD < 1021
    assert all(math.prod(factors_of(size)) == size and max(factors_of(size)) <= 512 for size in range(2, 513))


def test_signs_follow_from_the_seed_alone() -> None:
    first, again, other = (Rotation(16, seed, LIKE).signs.tolist() for seed in (0, 0, 1))
    assert first == again != other
    # written down once: files name the seed, whatever the version of torch
    assert first == [1, -1, -1, 1, -1, 1, 1, -1, -1, 1, -1, 1, -1, 1, -1, 1]
    assert set(Rotation(999, 7, LIKE).signs.tolist()) == {-1, 1}


def test_casting_there_and_back_loses_nothing() -> None:
    rotation = Rotation(3 * 64, 0, LIKE)
    moved = copy.deepcopy(rotation).half().double()
    inputs = torch.randn(2, 192, dtype=torch.float64)
    assert torch.equal(rotation(inputs), moved(inputs))
    assert not list(rotation.parameters()) and not rotation.state_dict()
    assert rotation(inputs.float()).dtype == torch.float32
    made = Rotation(6, 0, torch.zeros(1, dtype=torch.float32, device="meta"))
    assert made.signs.device.type == "cpu"
