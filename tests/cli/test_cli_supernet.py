"""`corank supernet`, from images to a file that every other command reads."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from corank.reports import read_record

NET = "elastic:2,width=4-4,depth=1+2,kernel=3+5,expansion=1+2,resolution=8"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    labels = np.arange(40) % 2
    pixels = random.integers(0, 100, (40, 8, 8, 3)) + labels[:, None, None, None] * 120
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(path, images=pixels.astype(np.uint8), labels=labels)
    return path


def test_train_search_extract_evaluate(invoke, images: Path, tmp_path: Path) -> None:
    def done(*words) -> str:
        result = invoke(*words)
        assert result.exit_code == 0, result.output
        return result.stdout

    four, two, small, tried = (
        tmp_path / name for name in ("4.safetensors", "2.safetensors", "s.safetensors", "t.json")
    )
    steps = ("--data", images, "--iterations", 2, "--batch-size", 8)
    page, log = tmp_path / "page.html", tmp_path / "train.json"
    done("supernet", "train", NET, *steps, "--bits", 4, "--out", four, "--record", log, "--report", page)
    (run,) = read_record(log)
    assert run["supernet"]["bits"] == 4 and run["supernet"]["choices"]["resolution"] == [8]
    assert [step["iteration"] for step in run["search_history"]] == [1, 2]
    assert "One network that holds many" in page.read_text()
    said = done("supernet", "train", four, *steps, "--bits", 2, "--out", two)
    assert "4 bits, steps doubled" in said and f"wrote {two}" in said.replace("\n", "")
    said = done("supernet", "search", four, two, "--data", images, "--eval", images, "--trials", 4, "--out", tried,
                "--record", log, "--report", page)  # fmt: skip
    told = json.loads(tried.read_text())
    assert len(told["trials"]) == 4 and told["front"][0]["reference"] in said.replace("\n", "").replace(" ", "")
    best = told["front"][-1]
    file = {4: four, 2: two}[best["bits"]]
    study = json.loads(log.read_text())
    assert study["front"][-1] == study["best"] and study["model"].startswith("elastic:2,width=4-4,")
    assert {one["name"] for one in study["importance"]} >= {"bits", "resolution"}
    command = shlex.split(study["trials"][study["best"]]["command"])
    assert command[4:] == [
        "--data", str(images), "--subnet", best["reference"], "--out", "subnet.safetensors"
    ] and command[3] == str(file)  # fmt: skip
    again = tmp_path / "again.html"
    done("report", log, "--out", again)
    assert again.read_text().replace("corank tune", "corank supernet search") == page.read_text()
    result = invoke("report", log, log, "--out", again)
    assert result.exit_code == 2 and "takes it alone" in result.stderr.replace("\n", " ")
    assert 'href="#trial-' in page.read_text() or study["trials"][0]["rungs"] == study["trials"][1]["rungs"]
    done("supernet", "extract", file, "--data", images, "--subnet", best["reference"], "--out", small)
    assert small.stat().st_size == best["size_bytes"]
    found = json.loads(done("evaluate", small, "--model", best["reference"], "--data", images, "--json"))
    assert found["bits"] == best["bits"]
    chosen = ",".join(f"{name}={value}" for name, value in best["chosen"].items())
    done("supernet", "extract", file, "--data", images, "--subnet", chosen, "--out", tmp_path / "same.safetensors")
    assert (tmp_path / "same.safetensors").read_bytes() == small.read_bytes()


def test_what_cannot_be_is_one_line(invoke, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    result = invoke("supernet", "train", NET, "--data", images, "--bits", 9, "--iterations", 1, "--out", out)
    assert result.exit_code == 2 and "bits=9" in result.stderr and not out.exists()
    result = invoke("supernet", "extract", images, "--data", images, "--out", out)
    assert result.exit_code == 2 and not out.exists()
    done = invoke("supernet", "train", NET, "--data", images, "--iterations", 0, "--out", tmp_path / "f.safetensors")
    assert done.exit_code == 0
    result = invoke("supernet", "extract", tmp_path / "f.safetensors", "--data", images, "--out", out)
    assert result.exit_code == 2 and "is in float" in result.stderr
    result = invoke("supernet", "search", tmp_path / "f.safetensors", "--data", images, "--eval", images)
    assert result.exit_code == 2 and "float supernet" in result.stderr
