"""The allocation against all others, on problems small enough to try them."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from corank.search.knapsack import KnapsackItem, allocate


def items(seed: int, count: int = 5, options: int = 5) -> list[KnapsackItem]:
    generator = torch.Generator().manual_seed(seed)
    return [
        KnapsackItem(
            torch.rand(options, generator=generator, dtype=torch.float64),
            torch.randint(1, 60, (options,), generator=generator),
        )
        for _ in range(count)
    ]


def total(given: list[KnapsackItem], chosen: list[int]) -> tuple[float, int]:
    pairs = list(zip(given, chosen, strict=True))
    return sum(float(item.errors[one]) for item, one in pairs), sum(int(item.bits[one]) for item, one in pairs)


def best(given: list[KnapsackItem], limit: int) -> float:
    everything = itertools.product(*(range(len(item.bits)) for item in given))
    totals = (total(given, list(chosen)) for chosen in everything)
    return min((error for error, bits in totals if bits <= limit), default=float("inf"))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("share", [0.0, 0.1, 0.35, 0.7, 1.0])
def test_no_other_choice_within_the_limit_loses_less(seed: int, share: float) -> None:
    given = items(seed)
    least = sum(int(item.bits.min()) for item in given)
    limit = least + int(share * sum(int(item.bits.max() - item.bits.min()) for item in given))
    chosen = allocate(given, limit)
    assert chosen is not None
    error, bits = total(given, chosen)
    assert bits <= limit
    assert error == pytest.approx(best(given, limit), rel=1e-12)


def test_nothing_fits_below_the_cheapest() -> None:
    given = items(0)
    least = sum(int(item.bits.min()) for item in given)
    assert allocate(given, least - 1) is None
    assert allocate(given, least) is not None


def test_more_bits_never_lose_more() -> None:
    given = items(3, count=12, options=20)
    errors = []
    for limit in range(60, 500, 7):
        chosen = allocate(given, limit)
        if chosen is not None:
            error, bits = total(given, chosen)
            assert bits <= limit
            errors.append(error)
    assert len(errors) > 40
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < errors[0] / 2


def test_errors_that_do_not_differ_take_the_fewest_bits() -> None:
    flat = KnapsackItem(torch.zeros(3, dtype=torch.float64), torch.tensor([30, 10, 20]))
    assert allocate([flat, flat], 60) == [1, 1]


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e9])
def test_the_unit_of_errors_does_not_matter(scale: float) -> None:
    given = items(7)
    scaled = [KnapsackItem(item.errors * scale, item.bits) for item in given]
    assert allocate(scaled, 120) == allocate(given, 120)


def test_many_layers_of_many_ranks_stay_near_the_bound() -> None:
    """Fifty layers, four codecs of 200 ranks: too much to try; the gap to the relaxation is a fraction of a step."""
    generator = torch.Generator().manual_seed(1)
    given: list[KnapsackItem] = []
    for _ in range(50):
        parts: list[tuple[Tensor, Tensor]] = []
        size = int(torch.randint(1000, 50_000, (1,), generator=generator))
        for bits in range(1, 5):
            gains = torch.rand(200, generator=generator, dtype=torch.float64).sort(descending=True).values ** 3
            gains = gains / gains.sum() * 4.0**-bits * size
            parts.append(
                (
                    4.0**-bits * size - torch.cat([gains.new_zeros(1), gains.cumsum(0)]),
                    size * bits + torch.arange(201) * size // 50,
                )
            )
        given.append(KnapsackItem(torch.cat([one for one, _ in parts]), torch.cat([two for _, two in parts])))
    limit = sum(int(2.3 * int(item.bits.min())) for item in given)
    chosen = allocate(given, limit)
    assert chosen is not None
    error, bits = total(given, chosen)
    assert bits <= limit
    prices = [1.1**power for power in range(-200, 60)]
    bound = max(sum(float(item.priced(price).min()) for item in given) - price * limit for price in prices)
    assert error >= bound
    assert error <= 1.02 * bound
