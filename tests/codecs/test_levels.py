"""Levels that the plan holds."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from corank import Plan
from corank.codecs import Binary, Levels
from corank.errors import ConfigError
from corank.plan import LayerPlan
from corank.testing import check_codec

NF4 = (
    -1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0,
)  # fmt: skip


@pytest.mark.parametrize(
    "codec", [Levels(), Levels(2, (-1, 0.25, 0.5)), Levels(4, NF4, group=8), Levels(1, (0, 1), -1)]
)
def test_conformance(codec: Levels) -> None:
    check_codec(codec)


def test_in_a_plan_and_back() -> None:
    plan = Plan({"a": LayerPlan(Levels(4, NF4)), "b": LayerPlan(Levels(4, NF4))})
    text = json.dumps(plan.to_json())
    assert Plan.from_json(json.loads(text)) == plan
    assert text.count("0.6961928") == 1


def test_only_scales_are_stored() -> None:
    codec = Levels(4, NF4)
    assert list(codec.fit(torch.randn(3, 9)).tensors()) == ["scale"]
    assert codec.size_bits(3, 9) == 27 * 4 + 3 * 16


def test_two_values_are_binary() -> None:
    weight = torch.randn(4, 30)
    ours, theirs = Levels().fit(weight), Binary().fit(weight)
    assert torch.equal(ours.values(ours.nearest(weight)), theirs.values(theirs.nearest(weight)))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"values": ()}, "2 to 256"),
        ({"values": (1.0,)}, "2 to 256"),
        ({"values": (1.0, 0.0)}, "each above the last"),
        ({"values": (1.0, 1.0)}, "each above the last"),
        ({"values": (0.0, float("nan"))}, "2 to 256"),
        ({"values": (0.0, 10**400)}, "2 to 256"),
        ({"values": (0.0, True)}, "2 to 256"),
        ({"values": tuple(range(257))}, "2 to 256"),
        ({"values": (0.0, 1.0, 2.0)}, "3 values take 2"),
        ({"bits": 4}, "2 values take 1"),
        ({"group": -2}, "group"),
    ],
)
def test_bad_settings(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Levels(**fields)


@pytest.mark.parametrize("values", [["a", "b"], [[1.0], [2.0]], [None, 1.0], {"0": 1}])
def test_a_plan_with_other_things_for_values_is_refused(values: Any) -> None:
    with pytest.raises(ConfigError):
        Plan.from_json({"layers": {"a": {"codec": {"kind": "levels", "values": values}}}})
