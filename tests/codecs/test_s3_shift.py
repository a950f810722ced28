"""S3: seven values, those of its decomposition."""

from __future__ import annotations

import pytest
import torch
from reference.levels import s3

from corank.codecs import PowerOfTwo, S3Shift
from corank.errors import ConfigError
from corank.testing import check_codec


@pytest.mark.parametrize("group", [0, -1, 5])
@pytest.mark.parametrize("power_of_two_scale", [False, True])
def test_conformance(group: int, power_of_two_scale: bool) -> None:
    check_codec(S3Shift(3, group, power_of_two_scale))


def test_levels_are_those_of_the_decomposition() -> None:
    assert (S3Shift().levels() * 4).tolist() == s3()


def test_a_trained_weight_gets_the_values_of_three_bit_powers_of_two() -> None:
    weight = torch.randn(4, 30)
    ours, theirs = S3Shift().fit(weight), PowerOfTwo(3).fit(weight)
    assert torch.equal(ours.values(ours.nearest(weight)), theirs.values(theirs.nearest(weight)))


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match=r"bits=4: S3Shift takes 3"):
        S3Shift(4)
