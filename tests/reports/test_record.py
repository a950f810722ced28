"""A record comes back as it was written, and an unsound file is refused with a reason."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from corank.errors import ArtifactError, ConfigError, DataError, OutputError
from corank.reports import read_record, record, write_record


def test_one_run_comes_back_as_written(tmp_path: Path, run: dict[str, Any]) -> None:
    write_record(tmp_path / "run.json", run)
    assert read_record(tmp_path / "run.json") == [run]
    assert (tmp_path / "run.json").read_text().startswith('{\n  "format": 1,\n')
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_several_runs_come_back_in_order(tmp_path: Path, runs: list[dict[str, Any]]) -> None:
    write_record(tmp_path / "runs.json", {"command": "demo", "runs": runs})
    assert read_record(tmp_path / "runs.json") == runs


def test_runs_take_what_they_lack_from_the_object_around_them(tmp_path: Path) -> None:
    outer = {"format": 1, "command": "demo", "model": "digits", "version": "1", "seconds": 9.0}
    write_record(tmp_path / "runs.json", {**outer, "runs": [{"label": "a"}, {"command": "quantize"}]})
    first, second = read_record(tmp_path / "runs.json")
    assert first == {"format": 1, "command": "demo", "model": "digits", "version": "1", "label": "a"}
    assert second["command"] == "quantize"


def test_numbers_that_are_not_finite_become_null(tmp_path: Path, bare: dict[str, Any]) -> None:
    layer = {"name": "a", "relative_output_error": -math.inf, "shape": (2, 3)}
    write_record(tmp_path / "run.json", {**bare, "seconds": math.nan, "layers": [layer]})
    (back,) = read_record(tmp_path / "run.json")
    assert back["seconds"] is None
    assert back["layers"] == [{"name": "a", "relative_output_error": None, "shape": [2, 3]}]


def test_a_record_of_other_than_plain_values_is_refused(tmp_path: Path, bare: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"record\.plan\.path is a value of type PosixPath"):
        write_record(tmp_path / "run.json", {**bare, "plan": {"path": tmp_path}})
    with pytest.raises(ConfigError, match="key 3"):
        write_record(tmp_path / "run.json", {**bare, "plan": {3: "a"}})
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_leaves_everything_as_it_was(tmp_path: Path, bare: dict[str, Any]) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "none" / "run.json", tmp_path / "file" / "run.json", tmp_path / "folder"):
        with pytest.raises(OutputError, match="cannot write"):
            write_record(path, bare)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_file_that_is_not_there_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the record"):
        read_record(tmp_path / "none.json")
    with pytest.raises(DataError, match="cannot read the record"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not sound JSON"),
        (b'{"format": 1, "comm', "not sound JSON"),
        (b"\xff\xfe\x00", "not sound JSON"),
        (b"[" * 100_000, "not sound JSON"),
        (b'{"format": 1, "plan": ' + b"[" * 60 + b"]" * 60 + b"}", "nested more than 40 deep"),
        (b'{"format": 1, "seconds": NaN}', "NaN is not a JSON number"),
        (b'{"format": 1, "seconds": 1e999}', "1e999 is too large"),
        (b'{"format": 1, "seconds": ' + b"9" * 5000 + b"}", "is too large"),
        (b"[1, 2]", "holds a value of type list"),
        (b'{"format": 1, "runs": []}', '"runs" is not a list of at least one object'),
        (b'{"format": 1, "runs": [3]}', '"runs" is not a list of at least one object'),
        (b'{"command": "quantize", "model": "m"}', "the run has format None"),
        (b'{"format": 2, "command": "quantize", "model": "m"}', "has format 2; .* reads format 1"),
        (b'{"format": 1, "runs": [{"command": "a"}]}', "the run has no model"),
        (b'{"format": 1, "seed": 0}', "the run has no command, model"),
    ],
)
def test_an_unsound_file_says_what_is_wrong(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=reason):
        read_record(path)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("label", 3, "label is 3, not a text"),
        ("stored_bytes", "1 MB", "stored_bytes is '1 MB', not a number"),
        ("seconds", True, "seconds is True, not a number"),
        ("plan", [], "plan is .*, not an object"),
        ("skipped", {"a": 3}, "reason for skipping 'a'"),
        ("layers", {}, "layers is .*, not a list of objects"),
        ("layers", [{"bits": 3}], "layer 0 has no name"),
        ("layers", [{"name": "a", "rank": "4"}], "layer 0: rank is '4'"),
        ("layers", [{"name": "a", "spectrum": [1, None]}], "spectrum is .*, not a list of numbers"),
        ("search_history", [{"loss": []}], "search step 0: loss"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(
    tmp_path: Path, bare: dict[str, Any], field: str, value: object, reason: str
) -> None:
    (tmp_path / "run.json").write_text(json.dumps({**bare, field: value}))
    with pytest.raises(ArtifactError, match=reason):
        read_record(tmp_path / "run.json")


def test_every_optional_field_may_be_null(tmp_path: Path, run: dict[str, Any], bare: dict[str, Any]) -> None:
    nulls = {**dict.fromkeys(run), **bare}
    write_record(tmp_path / "run.json", nulls)
    assert read_record(tmp_path / "run.json") == [nulls]


def test_a_file_that_is_too_large_is_refused(
    tmp_path: Path, run: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_record(tmp_path / "run.json", run)
    monkeypatch.setattr(record, "MAX_BYTES", 1000)
    with pytest.raises(ArtifactError, match="larger than"):
        read_record(tmp_path / "run.json")
