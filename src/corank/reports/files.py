"""Writing a file whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from corank.errors import OutputError

__all__ = ["make_directory", "write_file"]


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to `path`: a temporary file in the same folder, then one rename.

    Raises:
        OutputError: the file cannot be written; a file that was there before is as it was.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            f"cannot write {str(path)!r}: {error.strerror or error}; give a file name in a folder "
            "that exists and that you may write to"
        ) from error
    finally:
        _discard(temporary)


def make_directory(path: Path) -> None:
    """Create the folder `path` and those above it where they are missing.

    Raises:
        OutputError: it cannot be created, or a file of that name is in the way.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot create the folder {str(path)!r}: {error.strerror or error}; give a folder, not a file, "
            "in a place that you may write to"
        ) from error


def _discard(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError:
        # What stopped the writing also stops this, and that is the error to show.
        return
