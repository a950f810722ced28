"""What codecs of fixed levels share: groups, scales as stored, the scale of least error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference.levels import least_error

from corank.codecs import AdditivePowerOfTwo, DenseShift, PowerOfTwo, S3Shift
from corank.codecs.scaled import ScaledLevels, least_error_scale
from corank.errors import ConfigError

SEARCHED = [PowerOfTwo(2), PowerOfTwo(3), PowerOfTwo(4), AdditivePowerOfTwo(4), DenseShift(2), DenseShift(4), S3Shift()]


@pytest.mark.parametrize("codec", SEARCHED, ids=str)
def test_the_scale_is_near_the_best_of_a_dense_search(codec: ScaledLevels) -> None:
    weight = torch.randn(2, 60)
    weight[1, 0] = 8.0
    codebook = codec.fit(weight)
    lost = (codebook.values(codebook.nearest(weight)) - weight).square().sum(1)
    for row in range(2):
        largest = float(weight[row].abs().max())
        scales = [largest * 1.5 * step / 300 for step in range(10, 301)]
        assert float(lost[row]) <= 1.02 * least_error(weight[row].tolist(), codec.levels().tolist(), scales)


@pytest.mark.parametrize("codec", SEARCHED, ids=str)
def test_a_power_of_two_scale_is_the_best_one(codec: ScaledLevels) -> None:
    weight, levels = torch.randn(3, 40), codec.levels()
    scale = least_error_scale(weight, levels, power_of_two=True)
    assert bool((scale.frexp().mantissa == 0.5).all())
    for row in range(3):
        lost = least_error(weight[row].tolist(), levels.tolist(), [float(scale[row])])
        assert lost <= least_error(weight[row].tolist(), levels.tolist(), [2.0**step for step in range(-12, 6)]) + 1e-5


@pytest.mark.parametrize(("group", "scales"), [(0, 5), (-1, 1), (4, 20), (13, 5), (100, 5)])
def test_size_is_what_is_counted(group: int, scales: int) -> None:
    weight = torch.randn(5, 13)
    for exponents, each in ((False, 16), (True, 6)):
        codec = DenseShift(3, group, exponents)
        codebook = codec.fit(weight)
        assert codec.size_bits(5, 13) == 5 * 13 * 3 + each * scales
        assert codebook.size_bits == each * scales
        assert list(codebook.tensors()) == ["exponent" if exponents else "scale"]


def test_groups_of_columns_are_fitted_apart() -> None:
    weight = torch.randn(3, 13) * torch.logspace(-3, 1, 13)
    whole = PowerOfTwo(3, group=5).fit(weight)
    decoded = whole.values(whole.nearest(weight))
    for start in range(0, 13, 5):
        part = weight[:, start : start + 5]
        alone = PowerOfTwo(3).fit(part)
        assert torch.equal(decoded[:, start : start + 5], alone.values(alone.nearest(part)))


def test_rows_scale_with_their_weights_by_powers_of_two() -> None:
    weight = torch.randn(4, 30)
    for codec in SEARCHED:
        small, large = codec.fit(weight), codec.fit(weight * 8)
        assert torch.equal(small.scale * 8, large.scale)
        assert torch.equal(small.nearest(weight), large.nearest(weight * 8))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"bits": 5}, r"bits=5: DenseShift takes 2 to 4, e\.g\. DenseShift\(bits=4\)"),
        ({"bits": True}, "bits=True"),
        ({"bits": "3"}, "bits='3'"),
        ({"group": -2}, "group"),
        ({"group": 1.5}, "group"),
        ({"power_of_two_scale": 1}, "power_of_two_scale=1: true or false"),
    ],
)
def test_bad_settings(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DenseShift(**fields)
