"""Folders and repositories: written, uploaded and read back, without a network."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.errors import ArtifactError, ConfigError, ModelError, OutputError
from corank.hub import Card

huggingface_hub = pytest.importorskip("huggingface_hub")

FILES = {"corank.safetensors", "config.json", "README.md"}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 4)).eval()


@pytest.fixture(scope="module")
def inputs() -> Tensor:
    return torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def small(inputs: Tensor) -> nn.Module:
    return corank.quantize(network(), inputs, bits=3, budget=0.3, preset="nearest")


class FakeHub:
    """Repositories as folders; remembers what it was asked for."""

    def __init__(self, root: Path) -> None:
        self.root, self.asked = root, list[dict[str, Any]]()

    def api(self, **given: Any) -> SimpleNamespace:
        self.asked.append(given)
        return SimpleNamespace(create_repo=self.create_repo, upload_folder=self.upload_folder)

    def create_repo(self, **given: Any) -> SimpleNamespace:
        self.asked.append(given)
        (self.root / given["repo_id"]).mkdir(parents=True, exist_ok=True)
        return SimpleNamespace(repo_id=given["repo_id"])

    def upload_folder(self, **given: Any) -> str:
        self.asked.append(given)
        shutil.copytree(given["folder_path"], self.root / given["repo_id"], dirs_exist_ok=True)
        return f"https://hub/{given['repo_id']}/commit/1"

    def download(self, **given: Any) -> str:
        self.asked.append(given)
        path = self.root / given["repo_id"] / given["filename"]
        if not path.is_file():
            raise huggingface_hub.errors.EntryNotFoundError(f"404: no {path.name}\nmore")
        return str(path)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", fake.api)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake.download)
    return fake


def config_of(folder: Path) -> Mapping[str, Any]:
    return json.loads((folder / "config.json").read_text())


def test_a_folder_holds_three_files_and_gives_the_model_back(small: nn.Module, inputs: Tensor, tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    written = corank.save_pretrained(small, folder)
    assert {path.name for path in written} == FILES == {path.name for path in folder.iterdir()}
    for source in (folder, str(folder)):
        for model in (network, network()):
            assert torch.equal(corank.from_pretrained(source, model)(inputs), small(inputs))
    corank.save(small, tmp_path / "x.safetensors")
    assert (folder / "corank.safetensors").read_bytes() == (tmp_path / "x.safetensors").read_bytes()
    config = config_of(folder)
    assert config["stored_bytes"] == (folder / "corank.safetensors").stat().st_size
    assert config["plan"] == corank.inspect(small)["plan"] and config["bits"] == 3
    assert config["quantization_config"] == {"quant_method": "corank", "bits": 3}
    assert "# my-model" in (folder / "README.md").read_text()


def test_a_card_that_is_there_stays(small: nn.Module, inputs: Tensor, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    other = corank.quantize(network(), inputs, bits=4, preset="nearest")
    for model in (small, other):
        written = corank.save_pretrained(model, tmp_path)
        assert {path.name for path in written} == FILES - {"README.md"}
    assert (tmp_path / "README.md").read_text() == "mine" and config_of(tmp_path)["bits"] == 4
    assert torch.equal(corank.from_pretrained(tmp_path, network)(inputs), other(inputs))


def test_pushed_and_fetched(small: nn.Module, inputs: Tensor, hub: FakeHub) -> None:
    address = corank.push_to_hub(
        small, "user/tiny", commit_message="first", private=True, token="secret", branch="dev", create_pr=True,
        card=Card(license="mit"),
    )  # fmt: skip
    assert address == "https://hub/user/tiny/commit/1"
    api, repository, upload = hub.asked
    assert api["token"] == "secret" and api["library_name"] == "corank"
    assert repository == {"repo_id": "user/tiny", "private": True, "exist_ok": True}
    upload.pop("folder_path")
    assert upload == {
        "repo_id": "user/tiny", "repo_type": "model", "commit_message": "first", "revision": "dev", "create_pr": True,
    }  # fmt: skip
    assert {path.name for path in (hub.root / "user/tiny").iterdir()} == FILES
    assert 'corank.from_pretrained("user/tiny"' in (hub.root / "user/tiny" / "README.md").read_text()

    hub.asked.clear()
    loaded = corank.from_pretrained("user/tiny", network, revision="dev", token="secret", local_files_only=True)
    assert torch.equal(loaded(inputs), small(inputs))
    assert [asked["filename"] for asked in hub.asked] == ["config.json", "corank.safetensors"]
    assert all(asked["revision"] == "dev" and asked["local_files_only"] is True for asked in hub.asked)


def test_failures_of_the_hub_are_ours(
    small: nn.Module, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=r"user/none is neither a folder .*: 404: no config\.json$"):
        corank.from_pretrained("user/none", network)

    def refuse(**_given: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(hub, "upload_folder", refuse)
    with pytest.raises(OutputError, match="cannot push to 'user/tiny': ConnectionError"):
        corank.push_to_hub(small, "user/tiny")
    with pytest.raises(ArtifactError, match=r"holds no corank\.safetensors"):
        corank.from_pretrained(tmp_path, network)


def test_names_that_no_repository_can_have(small: nn.Module) -> None:
    with pytest.raises(ArtifactError, match="neither a folder"):
        corank.from_pretrained("no such folder!", network)


def test_what_cannot_be_written(small: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        corank.save_pretrained(small, tmp_path / "file")
    with pytest.raises(ModelError, match="not made by corank"):
        corank.save_pretrained(network(), tmp_path / "a")
    assert not (tmp_path / "a").exists()
    with pytest.raises(ConfigError, match="of another model"):
        corank.save_pretrained(small, tmp_path / "b", card=Card({"plan": {}, "quantized_value": 99.0}))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"corank\[hf\]"):
        corank.save_pretrained(small, tmp_path / "b")
    assert not list((tmp_path / "b").iterdir())


def test_a_file_that_does_not_fit_or_was_altered(small: nn.Module, tmp_path: Path) -> None:
    corank.save_pretrained(small, tmp_path)
    with pytest.raises(ArtifactError, match="does not fit"):
        corank.from_pretrained(tmp_path, nn.Sequential(nn.Linear(2, 2)))
    path = tmp_path / "corank.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError):
        corank.from_pretrained(tmp_path, network)


def test_a_precision_may_be_asked_for(small: nn.Module, inputs: Tensor, tmp_path: Path) -> None:
    corank.save_pretrained(small, tmp_path / "net")
    half = corank.from_pretrained(tmp_path / "net", network, dtype=torch.bfloat16)
    assert {part.dtype for part in half.parameters()} == {torch.bfloat16}
