"""Whose weights a file holds: codes may take the place of codes, not of a float network."""

from __future__ import annotations

from pathlib import Path

import safetensors
from safetensors import SafetensorError

from corank.errors import OutputError
from corank.storage.artifact_file import TENSOR

__all__ = ["check_replaceable", "holds_codes"]


def holds_codes(path: Path) -> bool:
    """Whether a file is an artifact of corank, by its head alone."""
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            return list(file.keys()) == [TENSOR] or "corank" in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError, RuntimeError):
        return False


def check_replaceable(path: Path) -> None:
    """Raises OutputError for weights that are not corank's: the float network of that folder."""
    if path.exists() and not holds_codes(path):
        raise OutputError(f"{path} holds a float network, which the codes would take the place of; give another folder")
