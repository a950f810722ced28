"""`corank prune`: what it writes and shows, and that its file is taken as weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Invoke = Callable[..., Result]
pytest.importorskip("torch_pruning")

NETWORK = """
import torch
from torch import nn


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(128, 10),
    ).eval(), {"mean": (0.5,), "std": (0.5,), "size": 8}


def images():
    return torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(64) % 10
"""


def test_a_pruned_file_is_made_told_and_quantized(invoke: Invoke, tmp_path: Path) -> None:
    net, small, coded = tmp_path / "net.py", tmp_path / "small.safetensors", tmp_path / "coded.safetensors"
    net.write_text(NETWORK)
    result = invoke(
        "prune", f"{net}:network", "--data", f"{net}:images", "--eval", f"{net}:images", "--remove", "0.4", "--out",
        small, "--record", tmp_path / "run.json", "--report", tmp_path / "run.html",
        "--iterations", "4", "--batch-size", "16", "--device", "cpu",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for said in ("multiply-adds", "top-1", "keep all channels (1):", "6: it gives the network's outputs", "wrote"):
        assert said in result.output
    record = json.loads((tmp_path / "run.json").read_text())
    before, after = record["pruned"]["multiply_adds"]
    assert after <= 0.6 * before and record["command"] == "prune"
    assert record["stored_bytes"] < record["float_bytes"]
    page = (tmp_path / "run.html").read_text()
    assert "What was removed?" in page and "% of the multiply-adds and" in page and page.count("<svg") == 2
    result = invoke(
        "quantize", f"{net}:network", "--weights", small, "--data", f"{net}:images", "--budget", "0", "--out", coded,
        "--device", "cpu",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    result = invoke("evaluate", coded, "--model", f"{net}:network", "--data", f"{net}:images", "--json")
    assert result.exit_code == 0, result.output


def test_a_share_that_cannot_be(invoke: Invoke, tmp_path: Path) -> None:
    net = tmp_path / "net.py"
    net.write_text(NETWORK)
    for share, said in (("1.5", "between 0 and 1"), ("0.999", "largest share of the multiply-adds")):
        result = invoke(
            "prune", f"{net}:network", "--data", f"{net}:images", "--remove", share, "--out", tmp_path / "a.safetensors"
        )
        assert result.exit_code == 2 and said in result.output
    assert not (tmp_path / "a.safetensors").exists()


def test_channels_are_weighed_against_bits(invoke: Invoke, tmp_path: Path) -> None:
    net, out, run = tmp_path / "net.py", tmp_path / "small.safetensors", tmp_path / "run.json"
    net.write_text(NETWORK)
    asked = ("quantize", f"{net}:network", "--data", f"{net}:images", "--out", out, "--device", "cpu")
    result = invoke(*asked, "--size", "2.4KB", "--preset", "nearest", "--prune", "0.3p", "--record", run)
    assert result.exit_code == 0, result.output
    assert "1 narrowed network was tried" in " ".join(result.output.split())
    shares = [one["share"] for one in json.loads(run.read_text())["candidates"]]
    assert shares == ["0", "0.3p"] and out.stat().st_size <= 2400
    for given, said in (
        (("--prune", "auto"), "--prune weighs channels against bits for a size"),
        (("--size", "2KB", "--prune", "much"), "shares such as"),
        (("--prune", "auto", "--plan", tmp_path / "plan.json"), "--plan and --prune were given"),
    ):
        result = invoke(*asked, *given)
        assert result.exit_code == 2 and said in " ".join(result.output.split()), result.output
