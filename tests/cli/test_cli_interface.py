"""The command where other programs meet it: closed and full pipes, JSON, narrow screens, Tab, --quiet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from corank.cli.completion import names
from corank.cli.screen import results_console, show_json
from corank.codecs import CODECS

CORANK = (sys.executable, "-c", "from corank.cli import main; main()")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii"}
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")


def started(*words: str | Path, **how) -> subprocess.Popen[str]:
    command = [*CORANK, *map(str, words)]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, env={**ENVIRONMENT, **how.pop("env", {})}, text=True, **how
    )


@POSIX
def test_a_reader_who_leaves_ends_it_as_a_shell_would(made: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = started("inspect", made / "model.safetensors", "--layers", stdout=writing)
    os.close(writing)
    assert process.communicate(timeout=600)[1] == "" and process.returncode == 141


@POSIX
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_output_that_cannot_be_written_is_an_error_of_one_line(made: Path) -> None:
    with open("/dev/full", "w") as full:
        process = started("inspect", made / "model.safetensors", stdout=full)
        said = process.communicate(timeout=600)[1]
    assert process.returncode == 1 and said == "error: cannot write the output: No space left on device\n"


@POSIX
def test_without_standard_output(made: Path) -> None:
    words = ["sh", "-c", '"$@" >&-', "sh", *CORANK, "inspect", str(made / "model.safetensors")]
    done = subprocess.run(words, capture_output=True, env=ENVIRONMENT, timeout=600, check=False, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_json_is_the_record(invoke, made: Path) -> None:
    for words in (["inspect"], ["evaluate", "--model", "digits", "--data", "digits:test"]):
        result = invoke(words[0], made / "model.safetensors", *words[1:], "--json")
        assert result.exit_code == 0 and json.loads(result.stdout)["bits"] == 3


def test_numbers_that_json_lacks_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"a": float("nan"), "b": [float("inf"), 1.5, "x" * 500], "c": {"d": None}})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5, "x" * 500], "c": {"d": None}}


@pytest.mark.parametrize("words", [["inspect"], ["evaluate", "--model", "digits", "--data", "digits:test"]])
def test_quiet_says_nothing(invoke, made: Path, words: list[str]) -> None:
    result = invoke(words[0], made / "model.safetensors", *words[1:], "--quiet")
    assert result.exit_code == 0 and result.output == ""


def test_quiet_report_says_nothing(invoke, made: Path, tmp_path: Path) -> None:
    result = invoke("report", made / "record.json", "--out", tmp_path / "page.html", "--quiet")
    assert result.exit_code == 0 and result.output == "" and (tmp_path / "page.html").stat().st_size > 10_000


def test_a_table_too_wide_for_a_narrow_screen_becomes_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Table("layer", "bits", "size", title="t")
    table.add_row("stage1.0.conv1.with.a.long.name.that.goes.on", "3", "1.9 KB")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for width, lines in (("40", True), ("100", False)):
        monkeypatch.setenv("COLUMNS", width)
        console = results_console()
        console.print(table)
        said = capsys.readouterr().out
        assert ("  bits 3, size 1.9 KB\n" in said) is lines
    assert isinstance(console, Console)


def test_tab_offers_names() -> None:
    assert names(CODECS)("ic") == ["icquant"] and names(CODECS)("") == sorted(CODECS) and names(CODECS)("q!") == []
    asked = {"_CORANK_COMPLETE": "complete_bash", "COMP_WORDS": "corank quantize --preset ", "COMP_CWORD": "3"}
    script = "import sys; sys.argv[0] = 'corank'; from corank.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, env={**ENVIRONMENT, **asked}, timeout=600, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["best", "fast", "nearest", "paper"], done.stderr
