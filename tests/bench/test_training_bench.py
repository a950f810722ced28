"""The training scripts of bench/: their tables on made-up results, their cases, and a few steps where data is there."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing.sounds import tone, wav

import corank
from corank.data import name_parts

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The names of a script, which finds the files beside it as it does when it is run."""
    monkeypatch.syspath_prepend(str(BENCH))

    def load(name: str) -> dict[str, Any]:
        for own in ("cifar_task", "models", "training_runs"):
            monkeypatch.delitem(sys.modules, own, raising=False)
        return runpy.run_path(str(BENCH / f"{name}.py"))

    return load


def record(top1: float, yardstick: str = "float", **changed: Any) -> dict[str, Any]:
    """What a run gives."""
    found = {"bits": "2", "yardstick": yardstick, "bytes": 68_000, "seconds_a_step": 0.5, "agreement": 90.0}
    return {**found, "top1": top1, **changed}


def test_a_table_has_float_first_and_gaps_to_the_row_of_the_same_loss(script: Any) -> None:
    runs = script("training_runs")
    results = {
        "net, 4 x 8/stats-2bit/0": record(80.0),
        "net, 4 x 8/stats-2bit/1": record(81.0),
        "net, 4 x 8/lsq-2bit/0": record(79.0, agreement=None),
        "net, 4 x 8/float/0": record(81.0, bits="32", bytes=1_088_000),
        "net, 4 x 8/float/1": record(82.5, bits="32", bytes=1_088_000),
        "net, 4 x 8/float, labels/0": record(87.0, "float, labels", bits="32"),
        "net, 4 x 8/taught-2bit/0": record(85.0, "float, labels"),
        "net, 9 x 8/stats-2bit/0": record(82.0),
    }
    lines = runs["markdown"](results, ["float", "float, labels", "lsq-2bit", "stats-2bit"]).splitlines()
    assert lines[0] == "**net, 4 x 8**"
    assert lines[4:9] == [
        "| float | 32 | 81.75 ± 1.06 |  | 90.0 | 1,088,000 | 0.500 | 2 |",
        "| float, labels | 32 | 87.00 |  | 90.0 | 68,000 | 0.500 | 1 |",
        "| lsq-2bit | 2 | 79.00 | -2.00 |  | 68,000 | 0.500 | 1 |",
        "| stats-2bit | 2 | 80.50 ± 0.71 | -1.25 | 90.0 | 68,000 | 0.500 | 2 |",
        "| taught-2bit | 2 | 85.00 | -2.00 | 90.0 | 68,000 | 0.500 | 1 |",
    ]
    assert lines[10] == "**net, 9 x 8**"
    assert "| stats-2bit | 2 | 82.00 |  | 90.0 | 68,000 | 0.500 | 1 |" in lines[10:]  # no float row, no gap
    assert {line.count("|") for line in lines if line.startswith("|")} == {9}


def test_networks_that_end_in_float_have_a_table_of_what_quantize_makes_of_them(script: Any) -> None:
    runs = script("training_runs")
    quantized = {"4": record(79.0), "8": record(81.0)}
    results = {
        "net/float, labels/0": record(87.0, "float, labels", quantized=quantized),
        "net/gradient-l1/0": record(86.0, "float, labels", quantized={"8": record(85.5)}),
    }
    text = runs["markdown"](results)
    assert "| Method | float | 8 bits | 4 bits |" in text
    assert "| float, labels | 87.00 | 81.00 | 79.00 |" in text
    assert "| gradient-l1 | 86.00 | 85.50 |  |" in text


def test_a_language_model_is_compared_in_nats(script: Any) -> None:
    results = {"m/float/0": record(0.0, nats=1.304), "m/stats-2bit/0": record(0.0, nats=1.5)}
    text = script("training_runs")["markdown"](results)
    assert "| Nats a token |" in text and "| stats-2bit | 2 | 1.500 | +0.196 |" in text


def test_finished_runs_are_kept_and_not_run_again(script: Any, tmp_path: Path) -> None:
    runs, asked = script("training_runs"), []
    cases = {name: runs["Case"](name) for name in ("float", "a-2bit", "b-2bit")}

    def runner(case: Any, seed: int) -> dict[str, Any]:
        asked.append((case.recipe, seed))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return record(80.0)

    out = tmp_path / "folder" / "results.json"
    options = runs["options_of"]("", "x").parse_args(
        ["--shared", ".", "--out", str(out), "--seeds", "2", "--only", "*-2bit"]
    )
    options.threads = 1
    with pytest.raises(KeyboardInterrupt):
        runs["run_all"](options, cases, "net", runner)
    assert list(json.loads(out.read_text())) == ["net/a-2bit/0", "net/b-2bit/0"]
    runs["run_all"](options, cases, "net", runner)
    assert asked == [("a-2bit", 0), ("b-2bit", 0), ("a-2bit", 1), ("a-2bit", 1), ("b-2bit", 1)]
    assert [path.name for path in out.parent.iterdir()] == ["results.json"]


def test_a_run_that_fails_is_said_at_the_end(script: Any, tmp_path: Path) -> None:
    runs = script("training_runs")

    def runner(case: Any, seed: int) -> dict[str, Any]:
        if case.recipe == "a":
            raise corank.ConfigError("no such thing")
        return record(80.0)

    out = tmp_path / "results.json"
    options = runs["options_of"]("", "x").parse_args(["--shared", ".", "--out", str(out), "--seeds", "1"])
    options.threads = 1
    with pytest.raises(SystemExit, match="net/a/0: no such thing"):
        runs["run_all"](options, {name: runs["Case"](name) for name in "ab"}, "net", runner)
    assert list(json.loads(out.read_text())) == ["net/b/0"]


def test_several_processes_share_the_cases(script: Any, tmp_path: Path) -> None:
    runs, asked = script("training_runs"), []
    cases = {name: runs["Case"](name) for name in "abcde"}
    for part in ("1/2", "2/2"):
        given = [
            "--shared",
            ".",
            "--out",
            str(tmp_path / f"{part[0]}.json"),
            "--seeds",
            "1",
            "--threads",
            "1",
            "--part",
            part,
        ]
        options = runs["options_of"]("", "x").parse_args(given)
        runs["run_all"](options, cases, "net", lambda case, seed: asked.append(case.recipe) or record(80.0))
    assert asked == ["a", "c", "e", "b", "d"]


def test_every_method_is_measured(script: Any) -> None:
    training = script("training")
    from corank.training.recipes import RECIPES, chosen_recipe

    # measured at sizes, by benches of their own (bench/binary_vit.py, ofq.py, robust.py, incremental.py), and on speech
    own = {"rate", "binary-vit", "ofq", "robust", "weight-aligning", *script("training_digits")["METHODS"]}
    assert set(RECIPES) <= set(training["METHODS"]) | set(training["ENDING_IN_FLOAT"]) | own
    for name in ("training", "training_digits", "training_language"):
        for case in script(name)["cases"]().values():
            assert case.recipe is None or chosen_recipe(case.recipe).to_json()
    assert list(training["cases"](56))[:3] == ["float", "float, labels", "float, scratch"]


def test_the_table_of_the_binary_transformer(script: Any) -> None:
    bench = script("binary_vit")
    row = {"top1": 48.164, "bytes": 5_015_724, "train_cpu_seconds": 84.1}
    lines = bench["table"]({"float": row, "binary": {**row, "packed_top1": 42.0}}).splitlines()
    assert lines[2:] == ["| float | 48.16 |  | 5,015,724 | 84 |", "| binary | 48.16 | 42.00 | 5,015,724 | 84 |"]
    assert bench["SHAPE"].grid(2) == 2


def test_spoken_digits_are_split_and_placed(script: Any, tmp_path: Path) -> None:
    digits, path = script("training_digits"), tmp_path / "digits.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for speaker in ("george", "theo"):
            for number in (0, 4, 5, 49):
                archive.writestr(f"set/3_{speaker}_{number}.wav", wav(tone(300, 0.1)))
    recordings = digits["read"](path)
    parts = [sorted(name_parts(part)["index"]) for part in digits["split"](recordings, "index", 0)]
    assert parts == [["49", "49", "5", "5"], ["0", "0", "4", "4"]]
    train, test = digits["split"](recordings, "speaker", 4)
    assert set(name_parts(train)["group"]) == {"george"} and set(name_parts(test)["group"]) == {"theo"}
    sound = digits["placed"](test, (0, 100)).tensor()
    assert sound.shape == (8, 8000) and torch.equal(sound[4, 100:], sound[0, :-100]) and not sound[4, :100].any()


def test_the_cost_of_every_way_is_a_row(script: Any) -> None:
    cost = script("training_cost")
    from corank.codecs import CODECS
    from corank.training.weights import WEIGHTS

    ways = cost["ways"]()
    assert next(iter(ways)) == "float" and {f"straight-through {codec}" for codec, _ in CODECS.items()} <= set(ways)
    assert all(any(way == name or way.startswith(f"{name} ") for way in ways) for name, _ in WEIGHTS.items())
    assert ways["straight-through binary"].allowed == 1.3 and ways["straight-through icquant"].allowed == 2.0
    times = {name: {"seconds": 0.1, "ratio": 1.4} for name in ("float", "a", "b")}
    memory = {"a": {"copies": 0.4, "allowed": 1.0}, "b": {"copies": 1.4, "allowed": 1.0}}
    lines = cost["table"]({"float": 1.5, "a": 2.0, "b": 1.3}, times, memory).splitlines()
    assert lines[3] == "| a | 0.1000 | 1.40 | 2 | +0.40 | 1.00 |  |"
    assert lines[4] == "| b | 0.1000 | 1.40 | 1.3 | +1.40 | 1.00 | slower and larger |"


def test_a_step_is_measured_beside_a_float_one(script: Any) -> None:
    cost = script("training_cost")
    wanted = {name: way for name, way in cost["ways"]().items() if name in ("float", "straight-through binary", "rate")}
    found = cost["seconds"](wanted, batch=2, repeat=1)
    assert set(found) == set(wanted) and found["float"]["ratio"] == 1.0
    assert all(one["seconds"] > 0 for one in found.values())


def run_script(name: str, *arguments: str | Path) -> None:
    command = [sys.executable, str(BENCH / f"{name}.py"), "--seeds", "1", "--threads", "1", *map(str, arguments)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]


def test_images_train_for_two_steps(shared: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    given = ("--shared", shared, "--out", out, "--iterations", "2", "--batch", "16", "--images", "48")
    run_script("training", *given, "--only", "float", "--only", "dense-shift-3bit")
    found = json.loads(out.read_text())
    assert list(found) == ["resnet20, 2 x 16/float/0", "resnet20, 2 x 16/dense-shift-3bit/0"]
    assert all(one["agreement"] > 0 and one["bytes"] > 10_000 for one in found.values())


def test_digits_train_for_two_steps(shared: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    given = ("--shared", shared, "--out", out, "--iterations", "2", "--batch", "16", "--clips", "60")
    run_script("training_digits", *given, "--only", "float", "--only", "stats-1bit")
    assert [one["yardstick"] for one in json.loads(out.read_text()).values()] == ["float", "float"]


def test_a_language_model_trains_for_two_steps(shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs the extra `hf`")
    out = tmp_path / "out.json"
    given = ("--shared", shared, "--out", out, "--iterations", "2", "--batch", "8", "--sequences", "8")
    run_script("training_language", *given, "--only", "parq-2bit")
    assert next(iter(json.loads(out.read_text()).values()))["nats"] < 6
