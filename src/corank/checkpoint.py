"""What a long run has done so far, in a folder: an interrupted run continues to the identical result."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from corank.errors import ConfigError, OutputError
from corank.files import is_scratch, write_whole
from corank.processes import from_main, number_of_processes

__all__ = ["Checkpoint", "fingerprint"]

_RUN = "run.json"


class Checkpoint:
    """Named steps of one run, each a file of tensors and a JSON note, written whole or not at all.

    Of several processes the main one alone reads and writes, and tells the others what it found, whether they share
    its disk or not. All of them must come by every call.

    Args:
        folder: made if it does not exist; None keeps nothing.
        identity: plain numbers and texts that tell this run from others.

    Raises:
        ConfigError: when the folder holds another run's steps. OutputError: when it cannot be written.
    """

    def __init__(self, folder: str | Path | None, identity: Mapping[str, Any] | None = None) -> None:
        self._folder = None if folder is None else Path(folder)
        self._part = ""
        if self._folder is not None:
            whole = {**(identity or {}), "processes": number_of_processes()}
            text, where = json.dumps(whole, sort_keys=True, indent=1), self._folder
            from_main(lambda: _open(where, text))

    @property
    def keeps(self) -> bool:
        """Whether there is a folder to keep steps in."""
        return self._folder is not None

    def within(self, part: str) -> Checkpoint:
        """The same checkpoint for a part of the run, whose steps have names of their own."""
        inner = copy.copy(self)
        inner._part = f"{self._part}{part}-"
        return inner

    def save(self, step: str, tensors: Mapping[str, Tensor], note: Mapping[str, Any] | None = None) -> None:
        """Writes a step, replacing an earlier one of that name."""
        if self._folder is not None:
            path = self._path(self._folder, step)
            from_main(lambda: _keep(path, tensors, note or {}))

    @property
    def folder(self) -> Path | None:
        """Where the steps are kept; None where nothing is."""
        return self._folder

    def load(self, step: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and note of a step; None if it was not reached.

        Raises:
            ConfigError: when the file is damaged.
        """
        if self._folder is None:
            return None
        path = self._path(self._folder, step)
        return from_main(lambda: _kept(path))

    def _path(self, folder: Path, step: str) -> Path:
        return folder / f"{self._part}{step}.safetensors"


def _open(folder: Path, identity: str) -> None:
    """Makes the folder that run's; scratch files of one that was killed while it wrote are swept away."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in filter(is_scratch, folder.iterdir()):
            left.unlink(missing_ok=True)
        known = folder / _RUN
        if not known.exists():
            if any(folder.iterdir()):
                raise ConfigError(f"{folder} holds other files; give an empty folder for the checkpoint")
            write_whole(known, identity)
        elif known.read_bytes() != identity.encode():
            raise ConfigError(
                f"{folder} holds the checkpoint of another run ({_difference(known.read_bytes(), identity)} differs); "
                "continue with what that run was given, or give an empty folder"
            )
    except OSError as error:
        raise OutputError(f"cannot keep a checkpoint in {folder}: {error.strerror or error}") from error


def _keep(path: Path, tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> None:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(note)
    data = safetensors.torch.save(plain, metadata={"note": text, "sha256": _digest(plain, text)})
    try:
        write_whole(path, data)
    except OutputError as error:
        raise OutputError(f"cannot keep a checkpoint in {path.parent}: {error}") from error


def _kept(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _digest(tensors, metadata["note"]) != metadata["sha256"]:
            raise ValueError("its SHA-256 does not match")
        return tensors, json.loads(metadata["note"])
    except (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        raise ConfigError(f"{path} is damaged ({error}); delete it, and the run repeats this step") from error


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """SHA-256 of dtype, shape and bytes of the tensors, in hexadecimal."""
    total = hashlib.sha256()
    for tensor in tensors:
        value = tensor.detach().cpu().contiguous()
        total.update(f"{value.dtype}{tuple(value.shape)}\0".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _digest(tensors: Mapping[str, Tensor], note: str) -> str:
    names = sorted(tensors)
    return hashlib.sha256(f"{note}\0{names}\0{fingerprint(tensors[name] for name in names)}".encode()).hexdigest()


def _difference(known: bytes, text: str) -> str:
    """The first entry in which two identities differ, in words."""
    try:
        before = json.loads(known)
    except ValueError:
        return "its run.json"
    now = json.loads(text)
    if isinstance(before, dict):
        return next((key for key in sorted({*before, *now}) if before.get(key) != now.get(key)), "its run.json")
    return "its run.json"
