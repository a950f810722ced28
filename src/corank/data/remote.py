"""Shards by URL, through fsspec: single images where few of a shard are asked for, else the shard as a whole."""

from __future__ import annotations

import io
import shutil
import tempfile
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from corank.data.shard_index import Shard
from corank.data.shard_store import cut_short, wrong_size
from corank.errors import ConfigError, DataError

__all__ = ["RemoteShards", "is_url", "read_remote"]

T = TypeVar("T")

WHOLE_FROM = 1 / 8  # of a shard's bytes: what was asked for before it is fetched as a whole
KEPT_BYTES = 8_000_000_000  # of whole shards, in a folder of this process that ends with it
LARGEST_INDEX_BYTES = 2_000_000_000
TRIES, FIRST_WAIT_SECONDS = 3, 0.5
BLOCK_BYTES = 8_000_000


def is_url(place: str) -> bool:
    """Whether a reference is a URL: of a scheme with more than one letter, which drives of Windows have."""
    return "://" in place and len(place.partition("://")[0]) > 1


def read_remote(url: str, name: str) -> io.BytesIO:
    """A small file in a folder by URL.

    Raises:
        DataError: it cannot be read, or is no small file. ConfigError: a package is missing.
    """
    files, root = _opened(url)
    place = f"{root}/{name}"

    def read() -> bytes:
        size_bytes = files.size(place)
        if size_bytes is None or size_bytes > LARGEST_INDEX_BYTES:
            raise DataError(f"{url} says that its {name} has {size_bytes} bytes; no index is so large")
        return files.cat_file(place, 0, size_bytes)

    return io.BytesIO(_tried(read, f"{url}: its {name} cannot be read", "give the URL of a folder by corank pack"))


class RemoteShards:
    """Shards in a folder by URL.

    A shard of which an eighth was asked for is fetched as a whole, into a folder of this process's own, since its other
    images will be asked for too; the shards that were not used for longest go first.

    Raises:
        DataError, ConfigError: no such place, or a package is missing.
    """

    is_far = True

    def __init__(self, url: str, kept_bytes: int = KEPT_BYTES) -> None:
        self.url, self._kept_bytes = url, kept_bytes
        self._files, self._root = _opened(url)
        self._asked: dict[str, int] = {}
        self._whole: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()
        self._folder = Path(tempfile.mkdtemp(prefix="corank-shards-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def __reduce__(self) -> tuple[type[RemoteShards], tuple[str, int]]:
        return RemoteShards, (self.url, self._kept_bytes)

    def read(self, shard: Shard, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of a shard at each (offset, size)."""
        with self._lock:
            asked = self._asked.get(shard.name, 0) + sum(size for _, size in spans)
            self._asked[shard.name] = asked
            is_worth = asked >= WHOLE_FROM * shard.size_bytes and shard.size_bytes <= self._kept_bytes / 2
            if is_worth and shard.name not in self._whole:
                self._fetch(shard)
            if shard.name in self._whole:
                self._whole.move_to_end(shard.name)
                found = _at_places(self._folder / shard.name, spans)
            else:
                found = self._parts(shard, spans)
        for data, (_, size) in zip(found, spans, strict=True):
            if len(data) != size:
                raise cut_short(f"{self.url}: {shard.name}")
        return found

    def _parts(self, shard: Shard, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        place = f"{self._root}/{shard.name}"
        starts, ends = [offset for offset, _ in spans], [offset + size for offset, size in spans]

        def read() -> list[bytes]:
            found = self._files.cat_ranges([place] * len(spans), starts, ends, on_error="raise")
            return [bytes(one) for one in found]

        return _tried(read, f"the shard {self.url}: {shard.name} cannot be read", "the same command goes on from there")

    def _fetch(self, shard: Shard) -> None:
        while self._whole and sum(self._whole.values()) + shard.size_bytes > self._kept_bytes:
            name, _ = self._whole.popitem(last=False)
            (self._folder / name).unlink(missing_ok=True)
            self._asked[name] = 0
        target = self._folder / shard.name

        def fetch() -> None:
            size_bytes = self._files.size(f"{self._root}/{shard.name}")
            if size_bytes is not None and size_bytes != shard.size_bytes:
                raise wrong_size(f"{self.url}: {shard.name}", size_bytes, shard)
            with self._files.open(f"{self._root}/{shard.name}", "rb") as source, target.open("wb") as copy:
                left = shard.size_bytes
                while left and (data := source.read(min(left, BLOCK_BYTES))):
                    copy.write(data)
                    left -= len(data)

        _tried(fetch, f"the shard {self.url}: {shard.name} cannot be fetched", "the same command goes on from there")
        self._whole[shard.name] = shard.size_bytes


def _at_places(path: Path, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    found = []
    with path.open("rb") as file:
        for offset, size in spans:
            file.seek(offset)
            found.append(file.read(size))
    return found


def _opened(url: str) -> tuple[Any, str]:
    """The file system of a URL and the folder in it."""
    try:
        import fsspec
    except ImportError as error:
        raise ConfigError("shards by URL need fsspec: pip install 'corank[remote]'") from error
    try:
        files, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise ConfigError(
            f"{url} needs a package: {error}; pip install 'corank[remote]' reads http and https"
        ) from error
    except Exception as error:  # of a scheme that is not known, or of its own package
        raise DataError(f"no data at {url}: {error}") from error
    return files, root.rstrip("/")


def _tried(read: Callable[[], T], failed: str, advice: str) -> T:
    """What `read` gives, tried a few times: networks fail for a moment."""
    for number in range(TRIES):
        try:
            return read()
        except (DataError, FileNotFoundError, PermissionError, NotImplementedError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{failed}: {error}; {advice}") from error
        except Exception as error:  # each file system has types of its own
            if number == TRIES - 1:
                raise DataError(f"{failed}: {error or type(error).__name__}; {advice}") from error
            time.sleep(FIRST_WAIT_SECONDS * 2**number)
    raise AssertionError
