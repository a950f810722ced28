"""Files that appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corank.errors import OutputError

__all__ = ["is_scratch", "make_directory", "read_at_most", "staged", "write_whole"]

_SCRATCH = re.compile(r"\..*\.[0-9a-f]{16}\.tmp")


def write_whole(path: str | Path, data: bytes | str) -> None:
    """Writes ``data`` to ``path``: a new file beside it, flushed to the disk, then one rename.

    The file has the mode of the one it replaces, or that which the process's umask gives a new one.

    Args:
        path: of the file; its folder exists.
        data: text is written as UTF-8.

    Raises:
        OutputError: it cannot be written; a file that was there before is as it was.
    """
    target = Path(path)
    try:
        _check_target(target)
        # Neither guessed nor shared: what another process puts in the way is never opened or followed.
        scratch = target.with_name(f".{target.name[:40]}.{secrets.token_hex(8)}.tmp")
        try:
            with scratch.open("xb") as file:
                _take_mode(scratch, target)  # before there is anything to be read in it
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, target)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        raise _refused(target, error) from error


@contextmanager
def staged(*targets: Path) -> Iterator[tuple[Path, ...]]:
    """For tools that write a path themselves: paths of the targets' names in a folder of their own beside the first,
    moved into place, in order, at the end, with the modes that :func:`write_whole` gives.

    Where the block raises, nothing is moved: files that were there before stay as they were.

    Raises:
        OutputError: when the folder or a target cannot be written.
    """
    try:
        for target in targets:
            _check_target(target)
        folder = Path(tempfile.mkdtemp(dir=targets[0].parent, prefix=f".{targets[0].name[:40]}.", suffix=".tmp"))
    except OSError as error:
        raise _refused(targets[0], error) from error
    try:
        scratch = tuple(folder / target.name for target in targets)
        yield scratch
        try:
            usual = _usual_mode(folder)
            for made, target in zip(scratch, targets, strict=True):
                made.chmod(usual)  # whatever the tool chose
                _take_mode(made, target)
                with made.open("rb+") as file:
                    os.fsync(file.fileno())
            for made, target in zip(scratch, targets, strict=True):
                os.replace(made, target)
        except OSError as error:
            raise _refused(targets[0], error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_at_most(path: str | Path, most_bytes: int) -> bytes:
    """The bytes of a small file.

    Raises:
        ValueError: it is larger. OSError: it cannot be read.
    """
    with Path(path).open("rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ValueError(f"it is larger than {most_bytes // 10**6} MB")
    return data


def make_directory(path: Path) -> None:
    """Creates the folder ``path`` and those above it where they are missing.

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


def is_scratch(path: Path) -> bool:
    """Whether it is what :func:`write_whole` leaves where the process was killed."""
    return _SCRATCH.fullmatch(path.name) is not None


def _check_target(target: Path) -> None:
    """Raises OSError for what a rename would replace by a file, though it is none, such as /dev/null."""
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise OSError("it is a device, a pipe or a socket, not a file")


def _take_mode(made: Path, target: Path) -> None:
    """Gives a new file the permissions of the one that it is to replace, if there is one."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISREG(mode):
        made.chmod(stat.S_IMODE(mode) & 0o777)


def _usual_mode(folder: Path) -> int:
    """The permissions that a new file gets; asking the umask itself would change it for all threads."""
    probe = folder / f".{secrets.token_hex(8)}"
    probe.touch(exist_ok=False)
    return stat.S_IMODE(probe.stat().st_mode)


def _refused(target: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write {str(target)!r}: {error.strerror or error}; give a file name in a folder that exists and that "
        "you may write to"
    )
