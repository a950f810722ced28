"""What a long run has done so far, in a folder: an interrupted run continues to the identical result."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from corank.errors import ConfigError, OutputError
from corank.processes import is_main

__all__ = ["Checkpoint", "fingerprint"]

_RUN = "run.json"


class Checkpoint:
    """Named steps of one run, each a file of tensors and a JSON note, written whole or not at all.

    Args:
        folder: made if it does not exist; None keeps nothing.
        identity: plain numbers and texts that tell this run from others.

    Raises:
        ConfigError: when the folder holds another run's steps. OutputError: when it cannot be written.
    """

    def __init__(self, folder: str | Path | None, identity: Mapping[str, Any] | None = None) -> None:
        self._folder = None if folder is None else Path(folder)
        self._part = ""
        if self._folder is None or not is_main():
            return
        text = json.dumps(identity or {}, sort_keys=True, indent=1)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            known = self._folder / _RUN
            if not known.exists():
                if any(self._folder.iterdir()):
                    raise ConfigError(f"{folder} holds other files; give an empty folder for the checkpoint")
                _write(known, text.encode())
            elif known.read_bytes() != text.encode():
                raise ConfigError(
                    f"{folder} holds the checkpoint of another run ({_difference(known.read_bytes(), text)} differs); "
                    "continue with what that run was given, or give an empty folder"
                )
        except OSError as error:
            raise OutputError(f"cannot keep a checkpoint in {folder}: {error.strerror}") from error

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
        if self._folder is None or not is_main():
            return
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        text = json.dumps(note or {})
        data = safetensors.torch.save(plain, metadata={"note": text, "sha256": _digest(plain, text)})
        try:
            _write(self._folder / f"{self._part}{step}.safetensors", data)
        except OSError as error:
            raise OutputError(f"cannot keep a checkpoint in {self._folder}: {error.strerror}") from error

    def load(self, step: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and note of a step; None if it was not reached.

        Raises:
            ConfigError: when the file is damaged.
        """
        if self._folder is None or not (path := self._folder / f"{self._part}{step}.safetensors").exists():
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


def _write(path: Path, data: bytes) -> None:
    scratch = path.with_name(path.name + ".tmp")
    scratch.write_bytes(data)
    os.replace(scratch, path)


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
