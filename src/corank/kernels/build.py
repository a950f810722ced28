"""C++ sources of this package as shared libraries: built once by the machine's own compiler, and kept."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

from corank.errors import OutputError
from corank.files import staged

__all__ = ["NotBuiltError", "built", "cache_folder"]

COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-shared", "-fPIC", "-ffp-contract=off", "-fvisibility=default")
_SECONDS = 120  # that a compiler may take


class NotBuiltError(Exception):
    """Why there is no library, in words: the caller goes on without."""


def built(source: Path, flags: tuple[str, ...] = (), wanted: tuple[str, ...] = ()) -> ctypes.CDLL:
    """The library of a source file of this package, compiled if it was not yet.

    Args:
        source: of one file.
        flags: of this library, beside :data:`FLAGS`.
        wanted: flags that a compiler may lack, such as ``-fopenmp``: it is compiled without them then.

    Its name in :func:`cache_folder` holds a hash of source, compiler and flags, so another version is another file. It
    is written under a name of its own and renamed: of several processes that build at once each finds a whole one.

    Raises:
        NotBuiltError: saying why there is none.
    """
    if os.name != "posix":
        raise NotBuiltError("the kernel is built on Linux and macOS alone")
    compiler = next((found for name in COMPILERS if (found := shutil.which(name))), None)
    if compiler is None:
        raise NotBuiltError(f"no C++ compiler was found ({', '.join(COMPILERS)})")
    text, every = source.read_bytes(), (*FLAGS, *flags)
    known = b"\0".join([text, _run([compiler, "--version"]), *(flag.encode() for flag in (*every, *wanted))])
    name = hashlib.sha256(known + platform.machine().encode()).hexdigest()[:32]
    try:
        target = _private(cache_folder()) / f"{source.stem}-{name}.so"
        if not target.is_file():
            with staged(target) as (scratch,):
                _compile([compiler, *every], wanted, source, scratch)
        return ctypes.CDLL(str(target))
    except (OSError, OutputError, RuntimeError) as error:  # the last from a user without a home
        raise NotBuiltError(str(error)) from error


def _compile(command: list[str], wanted: tuple[str, ...], source: Path, target: Path) -> None:
    ends = [str(source), "-o", str(target)]
    try:
        _run([*command, *wanted, *ends])
    except NotBuiltError:
        if not wanted:
            raise
        _run([*command, *ends])


def cache_folder() -> Path:
    """Where libraries are kept: ``corank/kernels`` in the user's cache folder."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    usual = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    return usual / "corank" / "kernels"


def _private(folder: Path) -> Path:
    """The folder, made if it is missing; what others can write to is never loaded from."""
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    for one in (folder.parent, folder):
        one.mkdir(mode=0o700, exist_ok=True)
        found = one.stat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise OSError(f"the folder {one} belongs to or is written by others; chmod 700 makes it yours alone")
    return folder


def _run(command: list[str]) -> bytes:
    """What a command writes; no shell reads it."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=True, stdin=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        raise NotBuiltError(f"{command[0]} failed: {error.stderr.decode(errors='replace')[-300:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotBuiltError(f"{command[0]} cannot be run: {error}") from error
    return done.stdout
