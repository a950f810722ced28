from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from corank.data import Preprocessing
from corank.errors import ConfigError, ModelError
from corank.models import resolve


@pytest.fixture
def factory(tmp_path: Path) -> str:
    (tmp_path / "nets.py").write_text("from torch import nn\ndef small():\n    return nn.Linear(3, 2)\n")
    return f"{tmp_path / 'nets.py'}:small"


def weight(model: nn.Module) -> torch.Tensor:
    return model.state_dict()["weight"]


def test_random_weights_follow_the_seed_and_leave_the_callers_state(factory: str) -> None:
    state = torch.random.get_rng_state()
    first, again, other = (resolve(factory, seed=seed) for seed in (0, 0, 1))
    assert torch.random.get_rng_state().equal(state)
    assert weight(first.model).equal(weight(again.model))
    assert not weight(first.model).equal(weight(other.model))
    assert first.random and first.weights is None and first.weights_sha256 is None
    assert not first.model.training and first.preprocessing == Preprocessing()


def test_a_weights_file_is_loaded_and_named(factory: str, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, path)
    found = resolve(factory, weights=path)
    assert weight(found.model).equal(torch.ones(2, 3)) and not found.random
    assert found.weights == str(path)
    assert found.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_pretrained_says_that_a_factory_brings_its_own(factory: str) -> None:
    assert not resolve(factory, pretrained=True).random


def test_pretrained_and_weights_exclude_each_other(factory: str) -> None:
    with pytest.raises(ConfigError, match="choose one"):
        resolve(factory, pretrained=True, weights="w.pt")


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("keras:resnet", "torchvision:NAME, timm:NAME, hf:NAME"),
        ("resnet18", "perhaps torchvision:resnet18 or timm:resnet18"),
        ("", r"file\.py:factory"),
        ("nets.py", r"write nets\.py:FUNCTION"),
        ("nowhere.py:small", "no file"),
    ],
)
def test_unknown_references(reference: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        resolve(reference)
