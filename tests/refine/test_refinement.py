"""What a refinement accepts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from corank import ConfigError
from corank.refine import Refinement


@pytest.mark.parametrize(
    "wrong",
    [
        {"iterations": -1},
        {"iterations": 2.5},
        {"iterations": True},
        {"batch_size": 0},
        {"scale_rate": -0.1},
        {"code_rate": 1.0},
        {"bias_rate": float("nan")},
        {"features": -1.0},
        {"features": float("inf")},
        {"precision": "float16"},
    ],
)
def test_bad_numbers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Refinement(**wrong)


def test_precision_is_what_was_asked_for() -> None:
    cpu = torch.device("cpu")
    assert Refinement(precision="bfloat16").uses_bfloat16(cpu)
    assert not Refinement(precision="float32").uses_bfloat16(cpu)
    assert isinstance(Refinement().uses_bfloat16(cpu), bool)


def test_rates_shrink_for_a_network_that_starts_near() -> None:
    assert Refinement(near=0.2).pace(0.05) == pytest.approx(0.25)
    assert Refinement(near=0.2).pace(3.0) == 1.0
    assert Refinement(near=0.0).pace(0.001) == 1.0
    with pytest.raises(ConfigError, match="near=-1"):
        Refinement(near=-1)
