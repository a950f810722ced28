"""Where shards lie: a folder of this machine, whose files are read at places without being mapped or extracted."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from corank.data.shard_index import AGAIN, Shard
from corank.errors import DataError

__all__ = ["LocalShards", "ShardStore", "cut_short", "read_at", "wrong_size"]

KEPT_OPEN = 256
IS_WINDOWS = sys.platform == "win32"


class ShardStore(Protocol):
    """Gives bytes of shards; several threads, and processes that were forked, may ask at once."""

    @property
    def is_far(self) -> bool:
        """Whether a shard is best read whole, one after the other."""
        ...

    def read(self, shard: Shard, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of a shard at each (offset, size).

        Raises:
            DataError: it is not there, or not as long as its index says.
        """
        ...


class LocalShards:
    """Shards in a folder.

    Files are read at a place, not mapped: where one is cut while it is in use, that is an error, and not the end of the
    process.
    """

    is_far = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, int] = {}
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._open)

    def __reduce__(self) -> tuple[type[LocalShards], tuple[Path]]:
        return LocalShards, (self.folder,)

    def read(self, shard: Shard, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of a shard at each (offset, size)."""
        path = self.folder / shard.name
        try:
            file, stays = self._file(path, shard)
            try:
                found = [read_at(file, offset, size) for offset, size in spans]
            finally:
                if not stays:
                    os.close(file)
        except OSError as error:
            raise DataError(f"the shard {path} cannot be read: {error.strerror or error}; {AGAIN}") from error
        for data, (_, size) in zip(found, spans, strict=True):
            if len(data) != size:
                raise cut_short(str(path))
        return found

    def _file(self, path: Path, shard: Shard) -> tuple[int, bool]:
        """An open file, and whether it stays open."""
        with self._lock:
            if shard.name in self._open:
                return self._open[shard.name], True
            file = os.open(path, os.O_RDONLY | (os.O_BINARY if IS_WINDOWS else 0))
            try:
                size_bytes = os.fstat(file).st_size
                if size_bytes != shard.size_bytes:
                    raise wrong_size(str(path), size_bytes, shard)
            except BaseException:
                os.close(file)
                raise
            stays = len(self._open) < KEPT_OPEN and not IS_WINDOWS
            if stays:
                self._open[shard.name] = file
            return file, stays


def read_at(file: int, offset: int, size: int) -> bytes:
    """Bytes of an open file; fewer where it ends."""
    if IS_WINDOWS:  # where a file is open for one reader alone
        os.lseek(file, offset, os.SEEK_SET)
        return os.read(file, size)
    return os.pread(file, size, offset)


def cut_short(place: str) -> DataError:
    """The error for a shard that ends too early."""
    return DataError(f"the shard {place} is cut short; copy it again, or {AGAIN}")


def wrong_size(place: str, size_bytes: int, shard: Shard) -> DataError:
    """The error for a shard of another length."""
    if size_bytes < shard.size_bytes:
        return DataError(
            f"the shard {place} is cut short: {size_bytes} of {shard.size_bytes} bytes; copy it again, or {AGAIN}"
        )
    return DataError(
        f"the shard {place} has {size_bytes} bytes, and its index says {shard.size_bytes}; copy both again, or {AGAIN}"
    )


def _close_all(files: dict[str, int]) -> None:
    for file in files.values():
        os.close(file)
