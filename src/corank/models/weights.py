"""Weights files from strangers, into a model that exists: all of it fits, or nothing is changed."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from corank.errors import CorankWarning, ModelError
from corank.layers import STRUCTURE, apply_structure
from corank.models.pruned_file import structure_in
from corank.models.state_dict import averages_beside, mixed_prefix, state_dict_in, under_names_of
from corank.models.weights_file import PART, check_whole, read_content, weight_files

__all__ = ["hash_files", "load_weights"]

SHOWN = 4


def load_weights(model: nn.Module, path: str | Path) -> str:
    """Copy weights into a model, in place, cast to the model's own dtypes.

    Everything is checked before anything is copied: after an error the model is as it was. The counter
    `num_batches_tracked` of a batch norm may be missing, and so may one name of a shared tensor. Nothing is ever
    unpickled but tensors, numbers and texts.

    Args:
        model: the model that the file belongs to.
        path: a .safetensors file; a folder of such, or its index; or .pt, .pth, .bin, .ckpt, .th, .tar holding a state
            dict, bare or in a container such as "state_dict", "model_state_dict" or "model". What wrappers and trainers
            put before every name ("module.", "_orig_mod.", "model.", "net.", one after the other, too) is dropped.
            "FILE:KEY" takes the container KEY, such as "ema", or the names that begin with KEY and a dot. Where there
            are moving averages beside the weights as trained, the latter are taken, with a
            :class:`~corank.errors.CorankWarning`.

    The file of a pruned network (:func:`corank.prune`) makes the model as narrow as it says first.

    Returns:
        The SHA-256 of the file, in hexadecimal; of several, over all of them, sorted by name.

    Raises:
        ModelError: no such file, one that is not sound or cut short, or one that does not fit the model.
    """
    file, key = _split(path)
    files = weight_files(file)
    structure = structure_in(files[0]) if len(files) == 1 else None
    given = _read(file, files, key)
    if any(value.is_meta for value in model.state_dict().values() if isinstance(value, Tensor)):
        raise ModelError("the model is on the meta device, with no room for weights: model.to_empty(device='cpu')")
    if structure:  # on a copy first: after an error the model is as it was
        narrow = copy.deepcopy(model)
        apply_structure(narrow, structure)
        _check(under_names_of(given, narrow.state_dict()), narrow.state_dict(), file)
        apply_structure(model, structure)
        model.__dict__[STRUCTURE] = structure
    with torch.no_grad():
        state = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
        given = under_names_of(given, state)
        _check(given, state, file)
        for name, value in given.items():
            state[name].copy_(value)
    return hash_files(files)


def hash_files(paths: Iterable[Path]) -> str:
    """The SHA-256 over the bytes of files, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _split(path: str | Path) -> tuple[Path, str | None]:
    """The file, and the key behind its last colon; a file whose own name has a colon stands as it is."""
    file = Path(path).expanduser()
    if file.exists() or ":" not in file.name:
        return file, None
    place, _, key = str(file).rpartition(":")
    return Path(place), key


def _read(file: Path, files: list[Path], key: str | None) -> dict[str, Tensor]:
    for one in files:  # before the first is read
        check_whole(one)
    contents = [read_content(one) for one in files]
    if len(contents) > 1:
        merged = {name: value for content in contents for name, value in content.items()}
        return state_dict_in(merged, file, key)
    others = averages_beside(contents[0])
    if others and key is None:
        warnings.warn(
            f"{file} also holds a moving average of the weights, {others[0]!r}, which often scores better; the weights "
            f"as they were trained are taken: give {file}:{others[0]} for the average",
            CorankWarning,
            stacklevel=3,
        )
    return state_dict_in(contents[0], file, key)


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
        part = PART.search(file.name)
        hint = f"; it is part {int(part[1])} of {int(part[2])}: give the folder" if part else ""
        hint = hint or mixed_prefix(given, missing, file)
        raise ModelError(
            f"{file} does not fit the model ({'; '.join(parts)}); give the weights of this very architecture{hint}"
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
