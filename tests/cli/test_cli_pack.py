"""`corank pack`, and the commands that read what it wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

Invoke = Callable[..., Result]


@pytest.fixture
def shards(invoke: Invoke, tmp_path: Path) -> Path:
    result = invoke("pack", "digits:train[:64]", "--out", tmp_path / "digits", "--shard-size", "20KB", "--json")
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert (made["samples"], made["shards"]) == (64, 8) and made["folder"] == str(tmp_path / "digits")
    assert made["bytes"] == sum(path.stat().st_size for path in (tmp_path / "digits").iterdir())
    return tmp_path / "digits"


def test_quantize_and_evaluate_read_shards_as_they_read_the_source(
    invoke: Invoke, shards: Path, tmp_path: Path
) -> None:
    written = []
    for data in ("digits:train[:64]", f"file://{shards}"):
        out = tmp_path / f"{len(written)}.safetensors"
        result = invoke("quantize", "digits", "--data", data, "--search", "greedy", "--out", out, "--quiet")
        assert result.exit_code == 0, result.output
        written.append(out.read_bytes())
    assert written[0][-32:] == written[1][-32:]
    words = ("evaluate", tmp_path / "1.safetensors", "--model", "digits", "--data")
    found = [invoke(*words, data) for data in (shards, "digits:train[:64]")]
    assert [result.exit_code for result in found] == [0, 0]
    assert found[0].stdout.splitlines()[:3] == found[1].stdout.splitlines()[:3]


def test_train_reads_shards(invoke: Invoke, shards: Path, tmp_path: Path) -> None:
    words = ("train", "digits", "--data", shards, "--iterations", "2", "--workers", "1", "--quiet")
    result = invoke(*words, "--out", tmp_path / "t.safetensors")
    assert result.exit_code == 0, result.output


def test_what_was_written_is_shown(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("pack", "digits:test[:9]", "--out", tmp_path / "d", "--decoded", "--image-size", "4", "--shuffle")
    assert result.exit_code == 0, result.output
    assert "9" in result.stdout and f"wrote {tmp_path / 'd'}".replace(" ", "") in result.stdout.replace(
        "\n", ""
    ).replace(" ", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("digits", "--image-size", "4"), "add --decoded"),
        (("digits", "--decoded", "--image-size", "4", "--model", "digits"), "choose one"),
        (("digits", "--shard-size", "none"), "give bytes or a text"),
        (("nowhere", "--decoded"), "no data at 'nowhere'"),
    ],
)
def test_what_cannot_be_is_said(words: tuple[str, ...], said: str, invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("pack", *words, "--out", tmp_path / "p")
    assert result.exit_code == 2 and said in result.output.replace("\n", " ")
    assert not list(tmp_path.iterdir())


def test_tokens_are_no_images(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("import numpy\ndef ids():\n    return numpy.zeros((4, 8), int)\n")
    np.savez(tmp_path / "t.npz", x=np.zeros(3))
    result = invoke("pack", f"{tmp_path / 't.py'}:ids", "--out", tmp_path / "p")
    assert result.exit_code == 2 and "gives token ids" in result.output.replace("\n", " ")
    assert invoke("pack", tmp_path / "t.npz", "--out", tmp_path / "p").exit_code == 2
