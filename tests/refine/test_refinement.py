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
