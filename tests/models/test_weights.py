from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from corank.errors import ModelError
from corank.models import load_weights


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(value.equal(state[name]) for name, value in model.state_dict().items())


def test_half_precision_safetensors_are_cast(tmp_path: Path) -> None:
    source, target, path = net(), net(), tmp_path / "w.safetensors"
    save_file({name: value.half() for name, value in source.state_dict().items() if value.ndim}, path)
    assert load_weights(target, path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert target[0].weight.dtype == torch.float32
    assert target[0].weight.equal(source[0].weight.half().float())


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
@pytest.mark.parametrize("wrapper", ["", "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_pytorch_files(tmp_path: Path, suffix: str, wrapper: str, prefix: str) -> None:
    source, target = net(), net()
    state = {prefix + name: value for name, value in source.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / f"w{suffix}")
    load_weights(target, tmp_path / f"w{suffix}")
    assert same(target, source.state_dict())


def test_every_misfit_is_listed_and_nothing_is_changed(tmp_path: Path) -> None:
    model = net()
    before = snapshot(model)
    given = {name: value + 1 for name, value in before.items()}
    del given["2.bias"]
    given["head.weight"] = torch.zeros(1)
    given["0.weight"] = torch.zeros(4, 3, 5, 5)
    given["1.weight"] = torch.zeros(4, dtype=torch.int64)
    save_file(given, tmp_path / "w.safetensors")
    with pytest.raises(ModelError) as caught:
        load_weights(model, tmp_path / "w.safetensors")
    said = str(caught.value)
    assert "1 missing: 2.bias" in said and "1 unexpected: head.weight" in said
    assert "0.weight is float32 (4, 3, 5, 5), the model has float32 (4, 3, 3, 3)" in said
    assert "1.weight is int64 (4,), the model has float32 (4,)" in said
    assert same(model, before)


def test_long_lists_are_cut(tmp_path: Path) -> None:
    save_file({f"x{index}": torch.zeros(1) for index in range(9)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"9 unexpected: x0, x1, x2, x3, \.\.\."):
        load_weights(net(), tmp_path / "w.safetensors")


def test_tied_weights_may_be_stored_once(tmp_path: Path) -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
    model["head"].weight = model["embed"].weight
    save_file({"embed.weight": torch.ones(5, 3)}, tmp_path / "w.safetensors")
    load_weights(model, tmp_path / "w.safetensors")
    assert model["head"].weight.equal(torch.ones(5, 3))


class Attack:
    def __reduce__(self) -> tuple[object, ...]:
        return (open, ("attacked", "w"))


def test_pickles_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = net()
    before = snapshot(model)
    for content in ({"0.weight": Attack()}, model):
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(ModelError, match="state_dict"):
            load_weights(model, tmp_path / "w.pt")
    assert not (tmp_path / "attacked").exists() and same(model, before)


def test_compressed_pytorch_files_are_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(100_000)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "w.pt", "w", 8) as bomb:
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    with pytest.raises(ModelError, match="compressed"):
        load_weights(net(), tmp_path / "w.pt")


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 3}, {3: torch.zeros(1)}, torch.zeros(3)])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="tensor"):
        load_weights(net(), tmp_path / "w.pt")


def test_sparse_and_storageless_tensors_are_refused(tmp_path: Path) -> None:
    model = net()
    before = snapshot(model)
    for value in (torch.ones(4).to_sparse(), torch.empty(4, device="meta")):
        torch.save(before | {"1.weight": value}, tmp_path / "w.pt")
        with pytest.raises(ModelError, match=r"1\.weight is"):
            load_weights(model, tmp_path / "w.pt")
    assert same(model, before)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("keep", [0, 5, 300])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, keep: int) -> None:
    path = tmp_path / f"w{suffix}"
    state = net().state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"not a sound|is damaged"):
        load_weights(net(), path)


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no weights file"):
        load_weights(net(), tmp_path / "w.pt")
    (tmp_path / "w.h5").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"\.safetensors or \.pt"):
        load_weights(net(), tmp_path / "w.h5")
