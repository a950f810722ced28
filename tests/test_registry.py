"""Codecs from outside: registered, saved, loaded in a fresh process, found by entry point."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.codecs import CODECS, Codec, Uniform
from corank.codecs.scaled import ScaledLevels
from corank.config import from_json, to_json
from corank.errors import ConfigError
from corank.registry import Registry
from corank.testing import check_codec

OUTSIDE = '''
"""A codec in one file outside the package."""
from dataclasses import dataclass

import torch

import corank
from corank.codecs.scaled import ScaledLevels


@dataclass(frozen=True)
class Quarters(ScaledLevels):
    bits: int = 3
    group: int = 0

    def levels(self):
        return torch.tensor([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0])


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.Linear(8, 3))


corank.register_codec("outside-quarters", Quarters)
'''
QUANTIZE = """
import sys, torch, corank, outside
inputs = torch.randn(64, 6)
small = corank.quantize(outside.network(), inputs, codec="outside-quarters", budget=0, checkpoint="kept")
again = corank.quantize(outside.network(), inputs, codec=outside.Quarters(), budget=0, preset="nearest")
corank.save(small, "small.safetensors")
small.corank_run.plan.save("plan.json")
torch.save((inputs, small(inputs)), "expected.pt")
"""
LOAD = """
import torch, corank, outside
small = corank.load("small.safetensors", outside.network())
inputs, expected = torch.load("expected.pt")
assert torch.equal(small(inputs), expected)
assert isinstance(small.corank_run.plan.layers["2"].codec, outside.Quarters)
assert corank.Plan.load("plan.json") == small.corank_run.plan
assert corank.inspect("small.safetensors")["layers"][1]["bits"] == 3
"""


def run(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", text], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outside")
    (folder / "outside.py").write_text(OUTSIDE)
    made = run(QUANTIZE, folder)
    assert made.returncode == 0, made.stderr
    return folder


def test_a_codec_of_ones_own_loads_in_a_fresh_process(outside: Path) -> None:
    found = run(LOAD, outside)
    assert found.returncode == 0, found.stderr


def test_a_file_of_a_codec_nobody_registered_says_its_name(outside: Path) -> None:
    with pytest.raises(corank.ArtifactError, match="'outside-quarters'"):
        corank.load(outside / "small.safetensors", nn.Linear(1, 1))


@dataclass(frozen=True)
class Thirds(ScaledLevels):
    bits: int = 2
    group: int = 0

    def levels(self) -> Tensor:
        return torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0])


class Unfrozen(Thirds):
    pass


def registry() -> Registry[Codec]:
    return Registry("codec", Codec, "corank.tests", {"uniform": Uniform})


def test_registers_and_names() -> None:
    check_codec(Thirds())
    found = registry()
    found.register("thirds", Thirds)
    found.register("thirds", Thirds)
    assert to_json(Thirds(), found) == {"kind": "thirds"} and from_json({"kind": "thirds"}, found, "codec") == Thirds()
    assert list(found) == ["uniform", "thirds"] and len(found) == 2


@pytest.mark.parametrize(
    ("name", "cls", "said"),
    [
        ("Thirds", Thirds, "lower case"),
        ("", Thirds, "lower case"),
        ("uniform", Thirds, "is corank.codecs.uniform.Uniform already"),
        ("thirds", nn.Linear, "subclass of Codec"),
        ("thirds", Thirds(), "subclass of Codec"),
        ("thirds", ScaledLevels, "frozen dataclass"),
    ],
)
def test_refuses(name: str, cls: type[Codec], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        registry().register(name, cls)


def test_unregistered_says_the_call() -> None:
    with pytest.raises(ConfigError, match=r"corank.register_codec\('thirds', Thirds\) registers it"):
        to_json(Thirds(), CODECS)
    with pytest.raises(ConfigError, match="register_codec"):
        corank.quantize(nn.Sequential(nn.Linear(4, 4)), torch.randn(8, 4), codec=Thirds(), checkpoint="nowhere")


def test_quantizes_unregistered_without_a_file() -> None:
    """Nothing is named where nothing is written."""
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 4))
    small = corank.quantize(model, torch.randn(64, 6), codec=Thirds(), budget=0)
    assert len(small.get_submodule("2").get_buffer("scale")) == 8
    with pytest.raises(ConfigError, match="register_codec"):
        corank.save(small, "never.safetensors")


def test_finds_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("thirds", f"{__name__}:Thirds", "corank.tests")
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or __import__(__name__))
    monkeypatch.setattr("corank.registry.entry_points", lambda group: [point] if group == "corank.tests" else [])
    found = registry()
    assert "thirds" in found and list(found) == ["uniform"]
    assert from_json({"kind": "thirds"}, found, "codec") == Thirds()
    again = registry()
    assert to_json(Thirds(), again) == {"kind": "thirds"}
