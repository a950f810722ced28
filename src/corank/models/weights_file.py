"""Reading weights files from strangers: whole, without running anything of them."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from corank.errors import ModelError

__all__ = ["FORMS", "check_whole", "read_content", "weight_files"]

PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".th", ".tar")
FORMS = f".safetensors, {', '.join(PICKLED)}, or a folder of .safetensors"
SINGLE = "model.safetensors"
INDEX = ".safetensors.index.json"
LARGEST_INDEX_BYTES = 64_000_000
POINTER = b"version https://git-lfs"
PART = re.compile(r"-(\d{5})-of-(\d{5})\.safetensors$")


def weight_files(path: Path) -> list[Path]:
    """The files that hold the weights, in order: the one given; those that an index names; those of a folder.

    Raises:
        ModelError: nothing there, an index that is not sound, or files that are missing.
    """
    if path.name.endswith(INDEX) and path.is_file():
        return _indexed(path)
    if path.is_dir():
        if (path / SINGLE).is_file():  # as transformers does, whatever else stands beside it
            return [path / SINGLE]
        indices = sorted(path.glob(f"*{INDEX}"))
        if indices:
            return _indexed(indices[0])
        files = sorted(path.glob("*.safetensors"))
        parts = [match for match in (PART.search(file.name) for file in files) if match]
        if parts and len(parts) < int(parts[0][2]):
            raise ModelError(
                f"{path} has {len(parts)} of {int(parts[0][2])} parts of the weights; copy the folder anew"
            )
        if not files:
            raise ModelError(f"{path} has no .safetensors file; give a weights file: {FORMS}")
        return files
    if not path.is_file():
        raise ModelError(f"there is no weights file {path}")
    return [path]


def check_whole(file: Path) -> None:
    """Raises ModelError for a .safetensors file that is cut short, or a Git LFS pointer in place of a file."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        if (start + stream.read(len(POINTER))).startswith(POINTER):
            raise ModelError(f"{file} is a Git LFS pointer, not the weights: fetch them with git lfs pull")
        if file.suffix.lower() != ".safetensors":
            return
        length = int.from_bytes(start, "little")
        if size < 8 + length:
            promised = f"{length} bytes" if len(start) == 8 else "some bytes"
            raise ModelError(
                f"{file} is cut short, or not a sound .safetensors file: it has {size} bytes and begins with a header "
                f"of {promised}"
            )
        stream.seek(8)
        ends = re.findall(rb'"data_offsets"\s*:\s*\[\s*\d+\s*,\s*(\d{1,18})\s*\]', stream.read(length))
    promised = 8 + length + max(map(int, ends), default=0)
    if size < promised:
        raise ModelError(
            f"{file} is cut short: {size} bytes of {promised}, so it is not a sound .safetensors file; copy it anew"
        )


def read_content(file: Path) -> Any:
    """What a file holds: names to tensors of a .safetensors file, else whatever a file of torch.save has.

    Raises:
        ModelError: for a file that is cut short, damaged or of an unknown kind, or holds Python objects.
    """
    suffix = file.suffix.lower()
    if suffix != ".safetensors" and suffix not in PICKLED:
        raise ModelError(f"{file} is of an unknown kind; give {FORMS}")
    check_whole(file)
    if suffix == ".safetensors":
        return _from_safetensors(file)
    try:
        _check_archive(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{file} is damaged, or holds Python objects, which are never loaded; where you trust it, take the tensors "
            f"out once: {_conversion(file)}"
        ) from error
    except ModelError:
        raise
    except Exception as error:  # a damaged file ends in any of a dozen types
        raise ModelError(f"{file} is not a sound PyTorch weights file: {error}") from error


def _conversion(file: Path) -> str:
    """The call that turns a pickled checkpoint into a file of tensors."""
    if file.suffix.lower() == ".ckpt":  # Lightning keeps hyperparameters and callbacks beside the tensors
        loaded = f"torch.load({file.name!r}, weights_only=False)['state_dict']"
        return f"torch.save({loaded}, 'weights.pt')"
    return "torch.save(model.state_dict(), 'weights.pt')"


def _from_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ModelError(f"{file} is not a sound .safetensors file: {error}") from error


def _check_archive(file: Path) -> None:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > file.stat().st_size:
                raise ModelError(f"{file} is compressed, which torch.save never does; refusing to unpack it")
        return
    with file.open("rb") as stream:
        if stream.read(2) == b"PK":  # a zip file whose directory, which stands at its end, is not there
            raise ModelError(f"{file} is cut short, so it is not a sound PyTorch weights file; copy it anew")


def _indexed(index: Path) -> list[Path]:
    try:
        if index.stat().st_size > LARGEST_INDEX_BYTES:
            raise ValueError(f"it is larger than {LARGEST_INDEX_BYTES // 1_000_000} MB")
        content = json.loads(index.read_text("utf-8"))
        names = content["weight_map"].values()
        files = sorted({Path(name).name for name in names})  # a name may not lead out of the folder
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{index} is not a sound index of weights files, or cut short: {error}") from error
    if not files or not isinstance(content["weight_map"], Mapping):
        raise ModelError(f"{index} names no weights file")
    missing = [name for name in files if not (index.parent / name).is_file()]
    if missing:
        raise ModelError(
            f"{index.parent} lacks {len(missing)} of {len(files)} parts of the weights: {', '.join(missing[:4])}; "
            "copy the folder anew"
        )
    return [index.parent / name for name in files]
