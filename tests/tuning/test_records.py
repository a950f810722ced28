"""Records of models: what ships, what is remembered, and what is no record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corank.errors import ConfigError
from corank.tuning.int8_space import INT8
from corank.tuning.records import Record, load_records, remember, shipped_records
from corank.tuning.space import key_of

RECORD = Record("toy", "net", {"layers": 3.0}, 90.0, 100, (({"a": 1, "b": None}, 80.0), ({"a": 2, "b": "x"}, 81.0)))


def test_what_ships_is_all_96_configurations_of_each_network() -> None:
    found = shipped_records("int8")
    every = {key_of(one) for one in INT8}
    assert found and all({key_of(one) for one, _ in record.trials} == every for record in found)
    assert len({record.model for record in found}) == len(found)
    assert shipped_records("no-such-space") == ()


def test_remembering_joins_trials_of_one_model(tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    remember(path, RECORD)
    assert load_records(path) == (RECORD,)
    other = Record("toy", "other", {}, 90.0, 100, (({"a": 3}, 70.0),))
    more = Record("toy", "net", {"layers": 3.0}, 90.0, 100, (({"b": "x", "a": 2}, 82.0), ({"a": 3}, 60.0)))
    remember(path, other)
    remember(path, more)
    kept, joined = load_records(path)
    assert kept == other and [score for _, score in joined.trials] == [80.0, 82.0, 60.0]


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", '{"version": 2, "records": []}', '{"version": 1, "records": [{"space": "x"}]}', "[" * 100_000,
        json.dumps({"version": 1, "records": [{**RECORD.to_json(), "reference": float("inf")}]}),
        json.dumps({"version": 1, "records": [{**RECORD.to_json(), "trials": [{"configuration": 3, "score": 1}]}]}),
    ],
)  # fmt: skip
def test_what_is_no_record_is_said(text: str, tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_records(path)
    with pytest.raises(ConfigError, match="cannot read"):
        load_records(tmp_path / "missing.json")
