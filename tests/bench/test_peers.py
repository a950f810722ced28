"""The comparison with other tools: what is run, what is kept, and how it is shown. No tool is installed or run."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

PEERS = Path(__file__).parents[2] / "bench" / "peers"


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of run.py, which finds the files beside it as a script does."""
    monkeypatch.syspath_prepend(str(PEERS))
    for name in ("environments", "prepared", "models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return runpy.run_path(str(PEERS / "run.py"))


@pytest.fixture
def table() -> dict[str, Any]:
    return runpy.run_path(str(PEERS / "table.py"))


def record(tool: str, method: str, bits: int, accuracy: float, **changed: Any) -> dict[str, Any]:
    """What a tool's script prints, as the output file keeps it."""
    return {
        "tool": tool,
        "method": method,
        "bits": bits,
        "accuracy": accuracy,
        "cpu_seconds": 12.0,
        "stored_bits_per_weight": bits + 0.07,
        "file_bytes": 100_000,
        "note": "affine",
        "network": "resnet20",
        "seed": 0,
        **changed,
    }


def test_cases_are_the_widths_that_a_tool_has(peers: dict[str, Any]) -> None:
    found = list(peers["cases"]("resnet20", ["quanto"], [3, 2], [0, 1], ["hqq"]))
    assert [case.key for case in found] == ["resnet20/quanto hqq/2/0", "resnet20/quanto hqq/2/1"]


def test_every_tool_has_a_script(peers: dict[str, Any]) -> None:
    assert {f"with_{tool}.py" for tool in peers["TOOLS"]} == {path.name for path in PEERS.glob("with_*.py")}


def test_finished_runs_are_kept_and_not_run_again(peers: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "folder" / "peers.json"
    wanted = list(peers["cases"]("resnet20", ["brevitas"], [2], [0], ["gptq", "gpfq"]))
    asked = []

    def runner(case: Any) -> dict[str, Any]:
        asked.append(case.key)
        if case.method == "gpfq" and len(asked) == 2:
            raise subprocess.CalledProcessError(1, ["python"])
        return record(case.tool, case.method, case.bits, 75.0)

    assert peers["run_all"](wanted, runner, out) == ["resnet20/brevitas gpfq/2/0"]
    assert list(json.loads(out.read_text())) == ["resnet20/brevitas gptq/2/0"]
    assert peers["run_all"](wanted, runner, out) == []
    assert asked == ["resnet20/brevitas gptq/2/0", "resnet20/brevitas gpfq/2/0", "resnet20/brevitas gpfq/2/0"]
    kept = json.loads(out.read_text())
    assert kept["resnet20/brevitas gpfq/2/0"]["accuracy"] == 75.0
    assert {value["network"] for value in kept.values()} == {"resnet20"}
    assert list(out.parent.iterdir()) == [out]


def test_the_result_is_the_last_json_line_among_a_tools_chatter(peers: dict[str, Any]) -> None:
    line = json.dumps(record("mct", "symmetric", 2, 77.0))
    assert peers["last_record"](f"{{'not': json}}\n100%|####|\n{line}\nbye\n")["accuracy"] == 77.0


@pytest.mark.parametrize("text", ["", "progress 100%\n", '{"tool": "mct"}\n'])
def test_output_without_a_whole_result_is_an_error(peers: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match="result"):
        peers["last_record"](text)


@pytest.mark.parametrize(("name", "size"), [("resnet20", 32), ("squeezenet1_1", 64)])
def test_folding_leaves_the_network_as_it_was(peers: dict[str, Any], name: str, size: int) -> None:
    model = peers["NETWORKS"][name]().eval()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean = torch.randn(part.num_features)
            part.running_var = torch.rand(part.num_features) + 0.5
            part.weight.data.uniform_(0.5, 1.5)
            part.bias.data.normal_()
    folded = peers["folded_network"](name)
    folded.load_state_dict(peers["folded_state"](model))
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        wanted = model(images)
        assert (folded(images) - wanted).norm() < 1e-4 * wanted.norm()


def test_bits_are_counted_as_a_packed_file_would_hold_them(peers: dict[str, Any]) -> None:
    count = peers["folded_network"].__globals__["bits_per_weight"]
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 4, 3), nn.Linear(4, 10))
    # 6, 72 and 40 weights of 8, 2 and 8 bits; 2, 4 and 10 channels with 16 bits of scale and a zero point each.
    codes = 6 * 8 + 72 * 2 + 40 * 8
    assert count(model, 2, symmetric=True) == pytest.approx((codes + 16 * 16) / 118)
    assert count(model, 2, symmetric=False) == pytest.approx((codes + 16 * 16 + 2 * 8 + 4 * 2 + 10 * 8) / 118)


def test_rows_are_means_over_seeds_of_one_network(table: dict[str, Any]) -> None:
    results = {
        "resnet20/float": 81.0,
        "a": {**record("brevitas", "gpfq", 2, 78.0), "kl": 0.1},
        "b": {**record("brevitas", "gpfq", 2, 79.0, seed=1), "kl": 0.3},
        "c": record("corank", "best", 2, 80.7),
        "d": record("corank", "best", 4, 81.0),
        "e": record("corank", "best", 2, 82.7, network="resnet56"),
    }
    found = table["rows"](results, "resnet20")
    assert [(one.tool, one.bits, one.seeds, one.top1) for one in found] == [
        ("corank", 4, 1, 81.0),
        ("corank", 2, 1, 80.7),
        ("brevitas", 2, 2, 78.5),
    ]
    assert found[2].spread == pytest.approx(0.7071, abs=1e-4)
    lines = table["markdown"](found, 81.0).splitlines()
    assert "| 2 bit | brevitas | gpfq | 78.5 ± 0.7 (2) | 0.200 | 2.07 | 100 KB | 12 | affine |" in lines
    assert "| 2 bit | corank | best | 80.7 (1) |  | 2.07" in table["markdown"](found, 81.0)  # not measured
    assert len({line.count("|") for line in lines[2:]}) == 1


def points(axes: Any) -> list[float]:
    """The heights of all points, not of lines."""
    return sorted(float(y) for line in axes.lines if line.get_linestyle() == "None" for y in line.get_ydata())


def test_the_picture_leaves_destroyed_networks_out_and_says_so(table: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib")
    results = {
        "a": record("brevitas", "nearest", 2, 26.4),
        "b": record("brevitas", "gpfq", 2, 78.0, file_bytes=1_100_000),
        "c": record("corank", "best", 2, 80.7),
        "d": record("corank", "best", 4, 81.0),
    }
    figure = table["picture"](table["rows"](results, "resnet20"), 81.0)
    saved, stored, seconds = figure.axes
    assert points(stored) == [78.0, 80.7, 81.0]
    assert points(seconds) == [78.0, 80.7]
    assert saved.get_xlabel().endswith("runs under 67 %, not shown: 1")
    assert {text.get_text() for text in seconds.texts} == {"gpfq", "best"}
