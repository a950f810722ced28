"""What stands where in a set of shards: one small file of arrays beside them, checked before anything is read by it."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from corank.data.decode import LARGEST_FILE_BYTES
from corank.data.npz import array_names, read_array
from corank.data.preprocessing import Preprocessing
from corank.data.tar import BLOCK
from corank.errors import DataError

__all__ = ["INDEX", "Shard", "ShardIndex"]

INDEX = "shards.npz"
KIND, VERSION = "corank shards", 1
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}\.tar", re.IGNORECASE)
AGAIN = "pack the data again: corank pack DATA --out FOLDER"


@dataclass(frozen=True)
class Shard:
    """A tar file of samples: its name in the folder, its size in bytes, how many samples it holds."""

    name: str
    size_bytes: int
    samples: int


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Where each of N images stands in its shard.

    Args:
        shards: in the order of their images.
        offsets: int64 (N,), where an image's bytes begin in its shard.
        sizes: int64 (N,), how many there are.
        checksums: uint32 (N,), the CRC-32 of each; None where shards of another tool have none.
        labels: int64 (N,), or None.
        class_names: or None.
        prepared: where images are decoded, uint8 (H, W, C), how they came to their size and channels; None where they
            are files as they were.

    Raises:
        DataError: parts that do not fit each other.
    """

    shards: tuple[Shard, ...]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    checksums: NDArray[np.uint32] | None = None
    labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] | None = None
    prepared: Preprocessing | None = None

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for name in (shard.name for shard in self.shards):
            if not NAME.fullmatch(name):
                raise DataError(f"{name!r} is no name of a shard; a shard is a .tar in the folder of its index")
            if name in seen:
                raise DataError(f"two shards have the name {name}; {AGAIN}")
            seen.add(name)
        count = len(self.offsets)
        samples = [shard.samples for shard in self.shards]
        if count == 0 or min(samples, default=0) < 1 or sum(samples) != count:
            raise DataError(f"the index has places of {count} images, and its shards hold others; {AGAIN}")
        for values in (self.sizes, self.checksums, self.labels):
            if values is not None and values.shape != (count,):
                raise DataError(f"the index has columns of different lengths; {AGAIN}")
        ends = np.repeat([shard.size_bytes for shard in self.shards], samples)
        fits = (self.offsets >= BLOCK) & (self.sizes >= 1) & (self.sizes <= LARGEST_FILE_BYTES)
        wrong = np.flatnonzero(~(fits & (self.offsets <= ends - self.sizes)))
        if wrong.size:
            raise DataError(f"the index places {self.name(int(wrong[0]))} outside of its shard; {AGAIN}")
        if self.labels is not None and self.class_names is not None and self.labels.max() >= len(self.class_names):
            raise DataError(f"the index has {len(self.class_names)} classes and a label beyond; {AGAIN}")

    def __len__(self) -> int:
        return len(self.offsets)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """int64 (shards + 1,), the position of each shard's first image, and how many there are."""
        return np.cumsum([0, *(shard.samples for shard in self.shards)], dtype=np.int64)

    def shard_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the shard that holds each image."""
        return np.searchsorted(self.starts, indices, side="right") - 1

    def name(self, index: int) -> str:
        """What an error calls an image."""
        number = int(self.shard_of(np.asarray(index)))
        return f"image {index - int(self.starts[number])} of {self.shards[number].name}"

    def to_bytes(self) -> bytes:
        """The file: an .npz of the columns and one text."""
        about = {
            "kind": KIND, "version": VERSION, "shards": [asdict(shard) for shard in self.shards],
            "class_names": self.class_names, "prepared": None if self.prepared is None else _stored(self.prepared),
        }  # fmt: skip
        columns: dict[str, NDArray[Any]] = {"offsets": self.offsets, "sizes": self.sizes}
        if self.checksums is not None:
            columns["checksums"] = self.checksums
        if self.labels is not None:
            columns["labels"] = self.labels
        columns["about"] = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for name, column in columns.items():  # an entry without a date: the same columns give the same bytes
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    npy.write_array(member, column, allow_pickle=False)
        return stream.getvalue()

    @classmethod
    def read(cls, file: Path | io.BytesIO, place: str) -> ShardIndex:
        """The index in a file.

        Args:
            file: a path, or the bytes.
            place: what an error calls it.

        Raises:
            DataError: not a sound index.
        """
        try:
            with zipfile.ZipFile(file) as archive:
                known = array_names(archive)
                found = {key: read_array(archive, key, known, place) for key in known}
            about = json.loads(_column(found, "about", np.uint8).tobytes())
            if about["kind"] != KIND or about["version"] != VERSION:
                raise DataError(f"it is of the kind {about['kind']!r}, version {about['version']!r}")
            return cls(
                tuple(_shard(entry) for entry in about["shards"]),
                _column(found, "offsets", np.int64),
                _column(found, "sizes", np.int64),
                _column(found, "checksums", np.uint32) if "checksums" in found else None,
                _column(found, "labels", np.int64) if "labels" in found else None,
                None if about["class_names"] is None else _texts(about["class_names"]),
                None if about["prepared"] is None else Preprocessing(**about["prepared"]),
            )
        except Exception as error:  # damaged archives, headers and texts end in any of a dozen types
            raise DataError(f"{place} is not a sound index of shards: {error}; {AGAIN}") from error


def _stored(prepared: Preprocessing) -> dict[str, Any]:
    """What changes pixels; mean and deviation are for the reader."""
    return {name: value for name, value in asdict(prepared).items() if name not in ("mean", "std")}


def _column(found: dict[str, NDArray[np.generic]], key: str, dtype: type[np.generic]) -> NDArray[Any]:
    if key not in found or found[key].dtype != dtype or found[key].ndim != 1:
        raise DataError(f"the column {key} is missing or of another type")
    return found[key]


def _shard(entry: dict[str, Any]) -> Shard:
    shard = Shard(**entry)
    if type(shard.name) is not str or type(shard.size_bytes) is not int or type(shard.samples) is not int:
        raise DataError("a shard is no name with two whole numbers")
    if not 0 <= shard.size_bytes < 2**62 or not 0 <= shard.samples < 2**40:
        raise DataError(f"{shard.name!r} has numbers that no shard has")
    return shard


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(type(one) is str for one in values):
        raise DataError("class names are no texts")
    return tuple(values)
