"""Weights files from strangers, into a model that exists: all of it fits, or nothing is changed."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from corank.errors import ModelError

__all__ = ["hash_files", "load_weights"]

PICKLED = (".pt", ".pth", ".bin")
WRAPPERS = ("state_dict", "model")
SHOWN = 4


def load_weights(model: nn.Module, path: str | Path) -> str:
    """Copy a weights file into a model, in place, cast to the model's own dtypes.

    Everything is checked before anything is copied: after an error the model is as it was. The counter
    `num_batches_tracked` of a batch norm may be missing, and so may one name of a shared tensor.

    Args:
        model: the model that the file belongs to.
        path: a .safetensors file, or .pt, .pth, .bin holding a state dict, bare or under "state_dict" or
            "model"; a "module." before every name is dropped. Nothing else is ever unpickled.

    Returns:
        The SHA-256 of the file, in hexadecimal.

    Raises:
        ModelError: no such file, one that is not sound, or one that does not fit the model.
    """
    file = Path(path)
    if not file.is_file():
        raise ModelError(f"there is no weights file {file}")
    given = _read(file)
    with torch.no_grad():
        state = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
        _check(given, state, file)
        for name, value in given.items():
            state[name].copy_(value)
    return hash_files([file])


def hash_files(paths: Iterable[Path]) -> str:
    """The SHA-256 over the bytes of files, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _read(file: Path) -> dict[str, Tensor]:
    suffix = file.suffix.lower()
    if suffix == ".safetensors":
        try:
            return load_file(file)
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise ModelError(f"{file} is not a sound .safetensors file: {error}") from error
    if suffix not in PICKLED:
        raise ModelError(f"{file} is of an unknown kind; give .safetensors or {', '.join(PICKLED)}")
    try:
        _check_archive(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{file} is damaged, or holds Python objects, which are not loaded; save the tensors alone with "
            "torch.save(model.state_dict(), 'weights.pt')"
        ) from error
    except ModelError:
        raise
    except Exception as error:  # a damaged file ends in any of a dozen types
        raise ModelError(f"{file} is not a sound PyTorch weights file: {error}") from error
    return _unwrap(content, file)


def _check_archive(file: Path) -> None:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > file.stat().st_size:
                raise ModelError(f"{file} is compressed, which torch.save never does; refusing to unpack it")


def _unwrap(content: object, file: Path) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{file} holds no state dict (names to tensors), bare or under {' or '.join(WRAPPERS)}")
    given: dict[str, Tensor] = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ModelError(f"{file} holds {name!r} of type {type(value).__name__} where a tensor belongs")
        given[name] = value
    if all(name.startswith("module.") for name in given):
        return {name.removeprefix("module."): value for name, value in given.items()}
    return given


def _check(given: Mapping[str, Tensor], state: Mapping[str, Tensor], file: Path) -> None:
    filled = {_place(state[name]) for name in given if name in state}
    missing = [
        name
        for name, value in state.items()
        if name not in given and not name.endswith("num_batches_tracked") and _place(value) not in filled
    ]
    unexpected = [name for name in given if name not in state]
    wrong = [
        f"{name} is {_describe(value)}, the model has {_describe(state[name])}"
        for name, value in given.items()
        if name in state and not _fits(value, state[name])
    ]
    parts = [
        f"{len(names)} {kind}: {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
        if names
    ]
    if parts:
        raise ModelError(
            f"{file} does not fit the model ({'; '.join(parts)}); give the weights of this very architecture"
        )


def _place(value: Tensor) -> tuple[object, ...]:
    """Equal for two names of one tensor, as tied weights have."""
    if value.numel() == 0:
        return (id(value),)
    return (value.device, value.data_ptr(), value.shape, value.stride())


def _describe(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def _fits(value: Tensor, target: Tensor) -> bool:
    plain = value.layout == torch.strided and not value.is_quantized and not value.is_meta
    same_kind = value.is_floating_point() == target.is_floating_point()
    return plain and same_kind and value.is_complex() == target.is_complex() and value.shape == target.shape
