"""The two-layer teacher of bench/roq.py: its coarse gradient, the averaging identity, and the optimum's recurrence."""

from __future__ import annotations

import math
import runpy
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

ROQ = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "roq.py"))
START = torch.tensor([0.1, -0.2, 0.05, -0.03, 0.2, 0.1, -0.15, 0.02], dtype=torch.float64)


def teacher(name: str) -> Tensor:
    return ROQ["teachers"]()[name]


def test_the_identity_is_exact_in_fractions() -> None:
    wanted = [Fraction(k, 10) for k in (7, -7, 1, 1)]  # of unit length; the codes are +-1/2
    first = [Fraction(1, 3), Fraction(1, 7), Fraction(-2, 5), Fraction(0)]
    rate, steps = Fraction(3, 100), 500
    weight, total = list(first), [Fraction(0)] * 4
    for _ in range(steps):
        code = [Fraction(1 if one >= 0 else -1, 2) for one in weight]
        total = [one + other for one, other in zip(total, code, strict=True)]
        weight = [w - rate * (q - t) for w, q, t in zip(weight, code, wanted, strict=True)]
    for place in range(4):
        assert total[place] / steps == wanted[place] + (first[place] - weight[place]) / (rate * steps)


@pytest.mark.parametrize("name", ["close", "looser", "avoiding"])
@pytest.mark.parametrize("steps", [1, 10, 3000])
def test_the_identity_holds_for_the_expected_coarse_gradient(name: str, steps: int) -> None:
    course = ROQ["iterate"](teacher(name), START, steps, ROQ["expected_gradient"])
    rate = course.rate * ROQ["FACTOR"]
    expected = teacher(name) + (course.first - course.last) / (rate * steps)
    assert torch.allclose(course.codes.mean(0), expected, rtol=1e-10, atol=1e-12)


def test_the_expectation_is_the_mean_of_sampled_coarse_gradients() -> None:
    codes, generator = ROQ["quantized"](START), torch.Generator().manual_seed(0)
    sampled = ROQ["sampled_gradient"](codes, teacher("looser"), 40_000, generator)
    expected = ROQ["expected_gradient"](codes, teacher("looser"))
    assert torch.allclose(sampled, expected, atol=0.05 * float(expected.abs().max()))


def test_zero_is_no_third_level() -> None:
    assert ROQ["quantized"](torch.tensor([0.0, -0.0, -1.0, 2.0])).tolist() == [0.5, 0.5, -0.5, 0.5]


@pytest.mark.parametrize("name", ["close", "looser"])
def test_near_codes_the_optimum_comes_again_and_again(name: str) -> None:
    course = ROQ["iterate"](teacher(name), START, 4000, ROQ["expected_gradient"])
    visits, least = course.visits(teacher(name)), ROQ["least_share"](teacher(name))
    for part in visits.double().split(1000)[1:]:
        assert float(part.mean()) >= least - 0.01 > 0
    assert 0 < int(visits.sum()) < 4000  # it comes and goes: the codes never settle


def test_noise_of_a_batch_does_not_keep_it_away() -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(codes: Tensor, wanted: Tensor) -> Tensor:
        return ROQ["sampled_gradient"](codes, wanted, 16, generator)

    course = ROQ["iterate"](teacher("close"), START, 3000, drawn)
    assert float(course.visits(teacher("close"))[1000:].double().mean()) > 0.8


def test_there_are_a_teacher_and_a_start_from_which_it_never_comes() -> None:
    wanted = teacher("avoiding")
    course = ROQ["iterate"](wanted, ROQ["avoiding_start"](wanted), 3000, ROQ["expected_gradient"])
    assert int(course.visits(wanted).sum()) == 0 and ROQ["least_share"](wanted) == 0
    assert len(course.codes.unique(dim=0)) == 3
    assert torch.allclose(course.codes.mean(0)[:3], wanted[:3], atol=1e-12)  # though their mean is right


def test_outer_coordinates_drift_without_bound() -> None:
    wanted = teacher("looser")
    size = math.sqrt(len(wanted)) * wanted.abs()
    short, long = (ROQ["iterate"](wanted, START, steps, ROQ["expected_gradient"]).last for steps in (1000, 4000))
    assert bool((long[size > 1.05].abs() > 3 * short[size > 1.05].abs()).all())
    assert bool((long[size < 1].abs() < 1).all())
