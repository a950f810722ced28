"""Counting thresholds by comparisons is what a search for each number finds, number for number."""

from __future__ import annotations

import pytest
import torch

from corank.codecs.places import picked, places


@pytest.mark.parametrize("count", [1, 2, 3, 7, 15, 31, 32, 33, 255])
@pytest.mark.parametrize("shape", [(3, 5), (64, 257), (130, 1100)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_places_are_those_of_a_search(count: int, shape: tuple[int, int], dtype: torch.dtype) -> None:
    source = torch.Generator().manual_seed(count)
    thresholds = torch.randn(count, generator=source, dtype=dtype).sort().values
    numbers = torch.randn(shape, generator=source, dtype=dtype)
    some = numbers.view(-1)[::7]
    some.copy_(thresholds[torch.arange(len(some)) % count])  # on a threshold: it is reached
    numbers[0, 0], numbers[0, 1] = -torch.inf, torch.inf
    found = places(numbers, thresholds)
    assert torch.equal(found.long(), torch.bucketize(numbers, thresholds, right=True))
    turned = numbers.t()
    assert torch.equal(places(turned, thresholds).long(), torch.bucketize(turned.contiguous(), thresholds, right=True))


@pytest.mark.parametrize("shape", [(2, 3), (64, 512)])
def test_a_threshold_at_infinity_is_reached_by_infinity_alone(shape: tuple[int, int]) -> None:
    thresholds = torch.tensor([0.5, torch.inf, torch.inf])
    numbers = torch.full(shape, 3e38)
    numbers[-1, -1] = torch.inf
    found = places(numbers, thresholds).long()
    assert int(found[0, 0]) == 1 and int(found[-1, -1]) == 3
    assert torch.equal(found, torch.bucketize(numbers, thresholds, right=True))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(), (7,), (5, 3), (2, 3, 4), (0, 4)])
def test_picked_is_an_index(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    levels = torch.randn(9)
    codes = torch.randint(9, shape).to(dtype)
    assert torch.equal(picked(levels, codes), levels[codes.long()])
    turned = codes.reshape(-1, max(1, codes.shape[-1]) if codes.dim() else 1).t()
    assert torch.equal(picked(levels, turned), levels[turned.long()])


def test_picked_hands_gradients_to_levels() -> None:
    levels = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    picked(levels, torch.tensor([[0, 2], [2, 2]], dtype=torch.uint8)).sum().backward()
    assert levels.grad is not None and levels.grad.tolist() == [1.0, 0.0, 3.0]
