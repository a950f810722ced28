from __future__ import annotations

import hashlib
import json
import re
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from corank.errors import CorankWarning, ModelError
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
    with pytest.raises(ModelError, match=r"give \.safetensors, \.pt"):
        load_weights(net(), tmp_path / "w.h5")


def save(state: dict[str, Tensor], path: Path) -> Path:
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "_orig_mod.module.", "model.net.module.")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_wrappers_and_trainers(tmp_path: Path, suffix: str, prefix: str) -> None:
    source, target = net(), net()
    path = save({prefix + name: value for name, value in source.state_dict().items()}, tmp_path / f"w{suffix}")
    load_weights(target, path)
    assert same(target, source.state_dict())


def test_wrappers_inside_of_names_and_around_the_model(tmp_path: Path) -> None:
    def model() -> nn.Module:
        return nn.Sequential(nn.Sequential(nn.Linear(3, 4)), nn.Linear(4, 2))

    source, target = model(), model()
    inside = nn.Sequential(nn.DataParallel(source[0]), torch.compile(source[1], backend="eager"))  # pyright: ignore
    load_weights(target, save(inside.state_dict(), tmp_path / "inside.pt"))
    assert same(target, source.state_dict())
    wrapped = nn.DataParallel(model())
    load_weights(wrapped, save(source.state_dict(), tmp_path / "plain.pt"))
    assert same(wrapped.module, source.state_dict())


def test_a_model_whose_own_names_begin_with_a_prefix(tmp_path: Path) -> None:
    """As language models of transformers: some of its own names begin with "model.", and none of them is dropped."""

    def model() -> nn.Module:
        return nn.ModuleDict({"model": nn.Linear(3, 3), "head": nn.Linear(3, 3)})

    source, target = model(), model()
    state = {f"module.{name}": value for name, value in source.state_dict().items()}
    load_weights(target, save(state, tmp_path / "w.pt"))
    assert same(target, source.state_dict())


def test_a_prefix_before_some_of_the_names_is_said(tmp_path: Path) -> None:
    source, target = net(), net()
    state = {f"model.{name}": value for name, value in source.state_dict().items()} | {"loss.weight": torch.ones(2)}
    path, before = save(state, tmp_path / "w.pt"), snapshot(target)
    with pytest.raises(ModelError, match=rf"9 of its 10 names begin with 'model\.'.*give {path}:model"):
        load_weights(target, path)
    assert same(target, before)
    load_weights(target, f"{path}:model")
    assert same(target, source.state_dict())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "net."])
def test_names_of_two_kinds_are_refused(tmp_path: Path, prefix: str) -> None:
    target = net()
    before = snapshot(target)
    state = {(prefix if name.startswith("0.") else "") + name: value + 1 for name, value in before.items()}
    with pytest.raises(ModelError, match=rf"2 of its 9 names begin with '{re.escape(prefix)}' and the others do not"):
        load_weights(target, save(state, tmp_path / "w.pt"))
    assert same(target, before)


@pytest.mark.parametrize(
    "container", ["state_dict", "model_state_dict", "model", "ema", "model_ema", "state_dict_ema", "ema_state_dict"]
)
def test_containers(tmp_path: Path, container: str) -> None:
    source, target = net(), net()
    torch.save({"epoch": 3, container: source.state_dict(), "optimizer": {"lr": 1.0}}, tmp_path / "w.pth")
    load_weights(target, tmp_path / "w.pth")
    assert same(target, source.state_dict())


def test_an_average_is_taken_where_it_is_asked_for(tmp_path: Path) -> None:
    trained, average, target = net(), net(), net()
    moving = {"module": {f"module.{name}": value for name, value in average.state_dict().items()}, "decay": 0.99}
    torch.save({"ema": moving, "model": trained.state_dict()}, tmp_path / "w.pt")
    with pytest.warns(CorankWarning, match=r"moving average of the weights, 'ema'.*give .*w\.pt:ema"):
        load_weights(target, tmp_path / "w.pt")
    assert same(target, trained.state_dict())
    load_weights(target, f"{tmp_path / 'w.pt'}:ema")
    assert same(target, average.state_dict())
    load_weights(target, f"{tmp_path / 'w.pt'}:model")
    assert same(target, trained.state_dict())
    with pytest.raises(ModelError, match=r"has no 'best': it holds ema, model"):
        load_weights(target, f"{tmp_path / 'w.pt'}:best")


def test_the_average_of_torch_itself(tmp_path: Path) -> None:
    source, target = net(), net()
    averaged = torch.optim.swa_utils.AveragedModel(source)
    load_weights(target, save(averaged.state_dict(), tmp_path / "w.pt"))
    assert same(target, source.state_dict())


def test_unknown_containers_are_named(tmp_path: Path) -> None:
    source, target = net(), net()
    torch.save({"epoch": 1, "generator": source.state_dict()}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"to take one of generator give .*w\.pt:generator"):
        load_weights(target, tmp_path / "w.pt")
    load_weights(target, f"{tmp_path / 'w.pt'}:generator")
    assert same(target, source.state_dict())


def test_lightning_checkpoints_are_read_without_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source, target = net(), net()
    state = {f"model.{name}": value for name, value in source.state_dict().items()}
    plain = {"state_dict": state, "pytorch-lightning_version": "2.4", "hyper_parameters": {"lr": 0.1}, "callbacks": {}}
    torch.save(plain, tmp_path / "a.ckpt")
    load_weights(target, tmp_path / "a.ckpt")
    assert same(target, source.state_dict())
    torch.save(plain | {"hyper_parameters": Attack()}, tmp_path / "b.ckpt")
    with pytest.raises(ModelError, match=r"never loaded.*torch\.load\('b\.ckpt', weights_only=False\)\['state_dict'\]"):
        load_weights(target, tmp_path / "b.ckpt")
    assert not (tmp_path / "attacked").exists()


def test_folders_of_parts(tmp_path: Path) -> None:
    source, target = net(), net()
    names = list(source.state_dict())
    parts = {"m-00001-of-00002.safetensors": names[:4], "m-00002-of-00002.safetensors": names[4:]}
    for file, held in parts.items():
        save_file({name: source.state_dict()[name] for name in held}, tmp_path / file)
    with pytest.raises(ModelError, match=r"it is part 1 of 2: give the folder"):
        load_weights(target, tmp_path / "m-00001-of-00002.safetensors")
    load_weights(target, tmp_path)
    assert same(target, source.state_dict())
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, held in parts.items() for name in held}}))
    target = net()
    load_weights(target, index)
    assert same(target, source.state_dict())
    (tmp_path / "m-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks 1 of 2 parts of the weights: m-00002-of-00002\.safetensors"):
        load_weights(target, tmp_path)
    index.unlink()
    with pytest.raises(ModelError, match="has 1 of 2 parts"):
        load_weights(target, tmp_path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_files_cut_short_say_so(tmp_path: Path, suffix: str) -> None:
    path = save(net().state_dict(), tmp_path / f"w{suffix}")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match="is cut short"):
        load_weights(net(), path)


def test_a_model_without_room_for_weights(tmp_path: Path) -> None:
    path = save(net().state_dict(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match="meta device"):
        load_weights(net().to("meta"), path)
