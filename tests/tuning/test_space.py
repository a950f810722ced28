"""Spaces: which configurations there are, as plain data both ways, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from corank.errors import ConfigError
from corank.tuning import Choice, Space
from corank.tuning.int8_space import INT8
from corank.tuning.own_space import own_space
from corank.tuning.space import key_of, written

SPACE = Space(
    "own",
    (
        Choice("codes", ("rate", "uniform")),
        Choice("rate", (1.0, 2.5), when={"codes": ("rate",)}),
        Choice("group", (0, 64, None), when={"codes": ("uniform",)}),
        Choice("fast", (False, True)),
    ),
)


def test_quantunes_space_has_96_configurations_each_once() -> None:
    found = list(INT8)
    assert len(found) == 96 and len({key_of(one) for one in found}) == 96
    assert {len(one) for one in found} == {5}


def test_conditions_leave_choices_out() -> None:
    found = list(SPACE)
    assert len(found) == (2 + 3) * 2
    assert all(("rate" in one) == (one["codes"] == "rate") and ("group" in one) != ("rate" in one) for one in found)
    drawn = {key_of(SPACE.draw(Random(seed))) for seed in range(200)}
    assert drawn == {key_of(one) for one in found}


@pytest.mark.parametrize("space", [SPACE, INT8, own_space(True), own_space(False)], ids=lambda one: one.name)
def test_plain_data_and_text_both_ways(space: Space) -> None:
    assert list(Space.from_json(space.to_json())) == list(space)
    for one in space.first(200):
        assert space.read(written(one)) == one and space.checked(one) == one


def test_a_toml_file_is_a_space(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        'name = "own"\n[[choices]]\nname = "depth"\nvalues = [1, 2, "none"]\n'
        '[[choices]]\nname = "wide"\nvalues = [true, false]\nwhen = {depth = [2]}\n'
    )
    assert [written(one) for one in Space.load(path)] == [
        "depth=1", "depth=2,wide=true", "depth=2,wide=false", "depth=none"
    ]  # fmt: skip


def test_other_values_for_a_choice() -> None:
    space = own_space(True).restricted("activations", ["8", "none"]).restricted("rounder", ["gptq"])
    assert {one["activations"] for one in space} == {8, None} and {one["rounder"] for one in space} == {"gptq"}
    with pytest.raises(ConfigError, match="no choice"):
        space.restricted("rounders", ["gptq"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("codes=rate,fast=true", "'rate' is nothing"),
        ("codes=rate,rate=9,fast=true", "'rate' is 9"),
        ("codes=rate,rate=1.0,group=0,fast=true", "'group' is no choice"),
        ("codes", "NAME=VALUE"),
    ],
)
def test_what_is_no_configuration_is_said(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SPACE.read(text)


def test_what_is_no_space_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="twice"):
        Choice("a", (1, 1))
    with pytest.raises(ConfigError, match="one or more"):
        Choice("a", ())
    with pytest.raises(ConfigError, match="texts, numbers"):
        Choice("a", ([1],))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="no choices"):
        Space("empty", ())
    with pytest.raises(ConfigError, match="twice"):
        Space("own", (Choice("a", (1,)), Choice("a", (2,))))
    with pytest.raises(ConfigError, match="earlier choice"):
        Space("own", (Choice("a", (1,), when={"b": (1,)}), Choice("b", (1,))))
    for text in ('{"name": 1}', '{"name": "x", "choices": [{"name": "a"}]}', "[", "[1]"):
        path = tmp_path / "space.json"
        path.write_text(text)
        with pytest.raises(ConfigError):
            Space.load(path)
    with pytest.raises(ConfigError, match="cannot read"):
        Space.load(tmp_path / "missing.toml")
