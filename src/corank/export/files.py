"""Files that appear whole, and only after what was written has been run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corank.errors import OutputError

__all__ = ["staged"]


@contextmanager
def staged(*targets: Path) -> Iterator[tuple[Path, ...]]:
    """Paths of the targets' names in a temporary folder beside the first; moved into place, in order, at the end.

    Where the block raises, nothing is moved: files that were there before stay as they were.

    Raises:
        OutputError: when the folder cannot be written.
    """
    try:
        folder = Path(tempfile.mkdtemp(dir=targets[0].parent, prefix=f".{targets[0].name[:80]}.", suffix=".tmp"))
    except OSError as error:
        raise OutputError(f"cannot write {targets[0]}: {error.strerror or error}") from error
    try:
        scratch = tuple(folder / target.name for target in targets)
        yield scratch
        try:
            for made, target in zip(scratch, targets, strict=True):
                os.replace(made, target)
        except OSError as error:
            raise OutputError(f"cannot write {targets[0]}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
