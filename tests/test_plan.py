"""Plans: plain JSON both ways, every mistake named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from corank.codecs import ICQuant, Uniform
from corank.errors import ConfigError, ModelError, OutputError
from corank.plan import LayerPlan, Plan, match
from corank.rounding import Gptq

PLAN = Plan(
    {
        "stem": LayerPlan(Uniform(8)),
        "body.0": LayerPlan(Uniform(3, group=64), Gptq(), 5, 4, "output", 3, True),
        "body.1": LayerPlan(Uniform(3, group=64), Gptq(), 2, 4, "output", 3, True),
        "odd": LayerPlan(None),
    }
)


def test_round_trip() -> None:
    again = Plan.from_json(json.loads(json.dumps(PLAN.to_json())))
    assert again == PLAN
    assert list(again.layers) == list(PLAN.layers)


def test_layers_list_only_what_differs() -> None:
    data = Plan({**PLAN.layers, "body.2": PLAN.layers["body.1"]}).to_json()
    assert data["default"]["codec"] == {"kind": "uniform", "bits": 3, "group": 64}
    assert data["layers"]["body.0"] == {"rank": 5}
    assert data["layers"]["body.2"] == {"rank": 2} or data["default"]["rank"] == 2
    assert data["layers"]["odd"]["codec"] is None


def test_empty_plan() -> None:
    assert Plan.from_json(Plan({}).to_json()) == Plan({})


def test_a_person_may_write_little() -> None:
    plan = Plan.from_json({"layers": {"a": {"codec": {"kind": "uniform", "bits": 2}, "rank": 3}, "b": {"codec": None}}})
    assert plan.layers["a"] == LayerPlan(Uniform(2), rank=3)
    assert list(plan.coded()) == ["a"]


def test_files(tmp_path: Path) -> None:
    PLAN.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == PLAN
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read a plan"):
        Plan.load(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text('{"layers": {')
    with pytest.raises(ConfigError, match="cannot read a plan"):
        Plan.load(tmp_path / "broken.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot read a plan"):
        Plan.load(tmp_path / "binary.json")
    with pytest.raises(OutputError):
        PLAN.save(tmp_path / "no such folder" / "plan.json")


def test_with_ranks_changes_only_ranks() -> None:
    changed = PLAN.with_ranks({"body.0": 1})
    assert changed.layers["body.0"] == LayerPlan(Uniform(3, group=64), Gptq(), 1, 4, "output", 3, True)
    assert changed.layers["body.1"] == PLAN.layers["body.1"]
    assert PLAN.layers["body.0"].rank == 5


CODEC = {"kind": "uniform"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "a plan is"),
        ({}, "a plan is"),
        ({"layers": []}, "a plan is"),
        ({"format": 2, "layers": {}}, "format 2"),
        ({"layers": {"a": 3}}, "'a'"),
        ({"default": 3, "layers": {"a": {}}}, "'a'"),
        ({"layers": {"a": {}}}, "no field 'codec'"),
        ({"layers": {"a": {"codec": CODEC, "ranks": 3}}}, "unknown field 'ranks'"),
        ({"layers": {"a": {"codec": {"kind": "octal"}}}}, "'a'.*no codec is called 'octal'"),
        ({"layers": {"a": {"codec": {"kind": "uniform", "bits": 9}}}}, "1 to 8"),
        ({"layers": {"a": {"codec": CODEC, "rounder": {"kind": "up"}}}}, "no rounder is called 'up'"),
        ({"layers": {"a": {"codec": CODEC, "rounder": {"kind": "gptq", "damping": "x"}}}}, "gptq"),
        ({"layers": {"a": {"codec": CODEC, "rank": -1}}}, "rank=-1"),
        ({"layers": {"a": {"codec": CODEC, "rank": 1.5}}}, "rank=1.5"),
        ({"layers": {"a": {"codec": CODEC, "rank": True}}}, "rank=True"),
        ({"layers": {"a": {"codec": CODEC, "adapter_bits": 1}}}, "adapter_bits=1"),
        ({"layers": {"a": {"codec": CODEC, "adapter_bits": 8.0}}}, "adapter_bits=8.0"),
        ({"layers": {"a": {"codec": CODEC, "fit": "best"}}}, "fit='best'"),
        ({"layers": {"a": {"codec": CODEC, "fit": ["svd"]}}}, "fit="),
        ({"layers": {"a": {"codec": CODEC, "rounds": 0}}}, "rounds=0"),
        ({"layers": {"a": {"codec": CODEC, "rounds": 10**9}}}, "rounds="),
        ({"layers": {"a": {"codec": CODEC, "bias_correction": "no"}}}, "bias_correction='no'"),
        ({"layers": {"a": {"codec": CODEC, "sequential": 1.5}}}, "sequential=1.5"),
    ],
)
def test_bad_plans(data: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Plan.from_json(data)


def test_match() -> None:
    names = ["stem", "layer1.0.conv1", "layer1.0.downsample.0", "layer2.0.conv1"]
    assert match("stem", names) == ["stem"]
    assert match("*.conv1", names) == ["layer1.0.conv1", "layer2.0.conv1"]
    assert match("*.downsample.*", names) == ["layer1.0.downsample.0"]
    assert match("layer[12].?.conv1", names) == ["layer1.0.conv1", "layer2.0.conv1"]


@pytest.mark.parametrize("pattern", ["layer3.*", "Stem", "", "conv1"])
def test_a_pattern_that_matches_nothing(pattern: str) -> None:
    with pytest.raises(ModelError, match=r"matches none of the 2 layers; closest: .*layer1"):
        match(pattern, ["layer1.0.conv1", "layer1.0.conv2"])


def test_what_codecs_measured_stands_alone_in_each_layer() -> None:
    plans = {name: LayerPlan(ICQuant(2, index=(100 + place, 6))) for place, name in enumerate("abc")}
    plans["d"], plans["e"] = LayerPlan(Uniform(8)), LayerPlan(ICQuant(2))
    plan = Plan(plans)
    data = json.loads(json.dumps(plan.to_json()))
    assert data["default"]["codec"] == {"kind": "icquant", "bits": 2}
    assert data["layers"]["b"] == {"codec": {"index": [101, 6]}} and data["layers"]["e"] == {}
    assert data["layers"]["d"]["codec"] == {"kind": "uniform", "bits": 8}
    assert Plan.from_json(data) == plan
