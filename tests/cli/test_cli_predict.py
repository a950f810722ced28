"""Recordings and images on the command line: coded, scored, exported, and what is said of single ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fuzzing.sounds import tone, wav
from PIL import Image
from typer.testing import Result

import corank

Invoke = Callable[..., Result]

NET = "speech-resnet:2,rate=4000,seconds=0.2,mels=8,width=4"
NAMES = ("--label", "{label}_{group}_{index}")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve recordings of two words by two speakers."""
    folder = tmp_path_factory.mktemp("words")
    for place in range(12):
        label, group, index = ("high", "low")[place % 2], ("ann", "bob")[place // 2 % 2], place // 4
        hertz = (1200, 300)[place % 2] + 20 * place
        (folder / f"{label}_{group}_{index}.wav").write_bytes(wav(tone(hertz, 0.15, 4000), 4000))
    return folder


@pytest.fixture(scope="module")
def small(words: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that trained on one of the speakers for a few steps."""
    from typer.testing import CliRunner

    from corank.cli import app

    file = tmp_path_factory.mktemp("small") / "small.safetensors"
    command = (
        "train", NET, "--data", f"{words}[group=ann]", *NAMES, "--recipe", "shift-speech-3bit", "--iterations", "12",
        "--batch-size", "6", "--eval", f"{words}[group=bob]", "--out", str(file), "--quiet",
    )  # fmt: skip
    result = CliRunner().invoke(app, list(command))
    assert result.exit_code == 0, result.output
    return file


def test_recordings_are_scored(small: Path, words: Path, invoke: Invoke) -> None:
    result = invoke("evaluate", small, "--model", NET, "--data", f"{words}[group!=ann]", *NAMES, "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["eval_samples"] == 6 and record["scored"] == "recordings" and record["quantized_value"] is not None
    assert {layer["bits"] for layer in record["layers"]} == {3, 8}


def test_single_recordings_are_told_with_probabilities(
    small: Path, words: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = words / "high_bob_0.wav", words / "low_bob_0.wav"
    result = invoke("predict", small, first, second, "--model", NET, "--classes", "high,low", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [one["sample"] for one in found] == [str(first), str(second)]
    for one in found:
        chances = [guess["probability"] for guess in one["classes"]]
        assert chances == sorted(chances, reverse=True) and abs(sum(chances) - 1) < 1e-5
        assert all(guess["name"] == ("high", "low")[guess["index"]] for guess in one["classes"])
    monkeypatch.chdir(words)  # a long path takes several lines of the table
    shown = invoke("predict", small, first.name, "--model", NET, "--top", "1")
    assert shown.exit_code == 0 and "%" in shown.stdout and first.name in shown.stdout


def test_a_folder_brings_its_names(small: Path, words: Path, invoke: Invoke) -> None:
    result = invoke("predict", small, f"{words}[index=2]", "--model", NET, *NAMES, "--json")
    found = json.loads(result.stdout)
    assert [one["sample"] for one in found] == [f"{a}_{b}_2.wav" for a in ("high", "low") for b in ("ann", "bob")]
    assert {guess["name"] for one in found for guess in one["classes"]} == {"high", "low"}


def test_images_are_told_too(made: Path, tmp_path: Path, invoke: Invoke) -> None:
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(tmp_path / "one.png")
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"digit {place}" for place in range(10)))
    result = invoke(
        "predict", made / "model.safetensors", tmp_path / "one.png", "--model", "digits", "--classes", names, "--json"
    )
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)
    assert len(found["classes"]) == 3 and found["classes"][0]["name"].startswith("digit ")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--classes", "a,b,c"), "3 names, and the network has 2 classes"),
        (("--image-size", "8"), "--image-size"),
        (("nowhere.wav",), "no recordings at 'nowhere.wav'"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    small: Path, words: Path, invoke: Invoke, more: tuple[str, ...], said: str
) -> None:
    result = invoke("predict", small, words / "low_ann_0.wav", "--model", NET, *more)
    assert result.exit_code == 2 and said in " ".join(result.stderr.split())


def test_label_is_of_recordings(made: Path, invoke: Invoke) -> None:
    result = invoke(
        "evaluate", made / "model.safetensors", "--model", "digits", "--data", "digits:test", "--label", "{label}"
    )
    assert result.exit_code == 2 and "reads no recordings" in " ".join(result.stderr.split())


def test_it_is_quantized_without_training_too(words: Path, tmp_path: Path, invoke: Invoke) -> None:
    out = tmp_path / "small.safetensors"
    result = invoke("quantize", NET, "--data", words, *NAMES, "--bits", "4", "--budget", "0", "--out", out, "--quiet")
    assert result.exit_code == 0, result.output
    assert {layer["bits"] for layer in corank.inspect(out)["layers"]} == {4, 8}
