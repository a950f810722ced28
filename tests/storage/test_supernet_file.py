"""Supernets on disk, and files of strangers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

import corank
from corank.errors import ArtifactError, ModelError
from corank.models import resolve

NAME = "elastic:3,width=4-4,depth=1+2,kernel=3+5,expansion=1+2,resolution=8"
IMAGES, LABELS = torch.randn(16, 3, 8, 8), torch.arange(16) % 3


@pytest.fixture(scope="module")
def four() -> nn.Module:
    return corank.train_supernet(resolve(NAME).model, (IMAGES, LABELS), 4, iterations=2, batch_size=8, random=0)


@pytest.mark.parametrize("shared", [True, False])
def test_it_comes_back_and_trains_on(shared: bool, tmp_path: Path) -> None:
    given: dict[str, Any] = {"iterations": 1, "batch_size": 8, "random": 0}
    net = corank.train_supernet(resolve(NAME).model, (IMAGES, LABELS), 4, **given, shared=shared)
    size = corank.save_supernet(net, tmp_path / "net.safetensors")
    assert size == (tmp_path / "net.safetensors").stat().st_size
    back = corank.load_supernet(tmp_path / "net.safetensors")
    assert back.corank_supernet.bits == 4 and not back.training and torch.equal(back(IMAGES), net(IMAGES))
    again, on = (corank.train_supernet(one, (IMAGES, LABELS), 3, **given) for one in (net, back))
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), on.state_dict().values(), strict=True))


def changed(four: nn.Module, path: Path, tensors: Callable[[dict[str, Tensor]], None], told: dict[str, Any]) -> Path:
    """The file with other tensors and another header."""
    corank.save_supernet(four, path)
    with safetensors.safe_open(path, "pt") as file:
        note = json.loads(file.metadata()["corank_supernet"])
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors(held)
    path.write_bytes(safetensors.torch.save(held, {"corank_supernet": json.dumps(note | told)}))
    return path


STEP = "stages.0.0.expand.steps.shared.weight.scale"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("stem.weight", torch.zeros(2, 2), "is \\(2, 2\\) in the file"),
        ("stem.weight", torch.full((4, 3, 3, 3), torch.nan), "NaN or infinite"),
        ("stem.weight", torch.zeros(4, 3, 3, 3, dtype=torch.float16), "torch.float16"),
        (STEP, -torch.ones(1, 1), "not above zero"),
        ("more", torch.zeros(2), "'more'"),
    ],
)
def test_tensors_that_cannot_be(four: nn.Module, tmp_path: Path, name: str, value: Tensor, said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        corank.load_supernet(changed(four, tmp_path / "x.safetensors", lambda held: held.update({name: value}), {}))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"version": 9}, "format 9"),
        ({"network": "elastic:3,width=4096-4096-4096,depth=32"}, "in the file"),  # nothing of that size is allocated
        ({"network": "torchvision:resnet18"}, "cannot be"),
        ({"network": 3}, "not one of a supernet"),
        ({"steps": {"stem": {"shared": [1, None, False]}}}, "cannot be"),
        ({"steps": {"stem": {"../x": [8, None, False]}}}, "cannot be"),
        ({"steps": {"nowhere": {"shared": [8, None, False]}}}, "no layer 'nowhere'"),
        ({"steps": []}, "not one of a supernet"),
        ({"record": {"bits": "4"}}, "no whole number"),
        ({"record": None}, "cannot be read"),
    ],
)
def test_headers_that_cannot_be(four: nn.Module, tmp_path: Path, told: dict[str, Any], said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        corank.load_supernet(changed(four, tmp_path / "x.safetensors", lambda held: None, told))


def test_other_files(four: nn.Module, tmp_path: Path) -> None:
    corank.save(corank.extract_subnet(four, IMAGES), tmp_path / "small.safetensors")
    with pytest.raises(ArtifactError, match="is no supernet"):
        corank.load_supernet(tmp_path / "small.safetensors")
    corank.save_supernet(four, tmp_path / "net.safetensors")
    with pytest.raises(ArtifactError):
        corank.load(tmp_path / "net.safetensors", resolve(NAME).model)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "net.safetensors").read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="cannot be read"):
        corank.load_supernet(tmp_path / "cut.safetensors")
    with pytest.raises(ArtifactError, match="cannot be read"):
        corank.load_supernet(tmp_path / "missing.safetensors")
    with pytest.raises(ModelError, match="no trained supernet"):
        corank.save_supernet(resolve(NAME).model, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match="no elastic layers"):
        corank.load_supernet(tmp_path / "net.safetensors", nn.Linear(2, 2))
