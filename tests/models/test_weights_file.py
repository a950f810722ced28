from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from corank.errors import ModelError
from corank.models.weights_file import check_whole, read_content, weight_files


def test_the_files_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no \.safetensors file"):
        weight_files(tmp_path)
    for name in ("b", "a"):
        save_file({name: torch.ones(2)}, tmp_path / f"{name}.safetensors")
    assert [file.name for file in weight_files(tmp_path)] == ["a.safetensors", "b.safetensors"]
    index = tmp_path / "all.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"b": "b.safetensors"}}))
    assert weight_files(tmp_path) == weight_files(index) == [tmp_path / "b.safetensors"]
    save_file({"c": torch.ones(2)}, tmp_path / "model.safetensors")
    assert weight_files(tmp_path) == [tmp_path / "model.safetensors"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}', '{"weight_map": {}}']
)
def test_an_index_that_is_not_sound(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.safetensors.index.json").write_text(text)
    with pytest.raises(ModelError, match=r"not a sound index|names no weights file"):
        weight_files(tmp_path)


def test_an_index_does_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    (folder / "m.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../a.safetensors"}}))
    with pytest.raises(ModelError, match=r"lacks 1 of 1 parts"):
        weight_files(folder)


@pytest.mark.parametrize("keep", [0, 4, 8, 40, 60, -1])
def test_a_file_cut_short(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(9), "b": torch.ones(4)}, path)
    check_whole(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="cut short"):
        check_whole(path)


def test_kinds_that_people_have(tmp_path: Path) -> None:
    for suffix in (".pt", ".pth", ".bin", ".ckpt", ".th", ".pth.tar"):
        torch.save({"a": torch.ones(2)}, tmp_path / f"w{suffix}")
        assert read_content(tmp_path / f"w{suffix}")["a"].equal(torch.ones(2))
    (tmp_path / "w.onnx").write_bytes(b"x")
    with pytest.raises(ModelError, match="unknown kind"):
        read_content(tmp_path / "w.onnx")
