"""Images written as shards: tar files of a few hundred megabytes that are read in place, with an index beside them.

A sample is two members, as the package webdataset has them: `000000012.jpg`, the file as it was (or `.npy`, its
pixels), and `000000012.cls`, its class.
"""

from __future__ import annotations

import os
import secrets
import shutil
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from corank.data.archive import ArchiveSource
from corank.data.arrays import PixelSource
from corank.data.decode import decode_files, format_of
from corank.data.folder import FolderSource
from corank.data.images import ImageSet
from corank.data.pixel_file import pixel_file
from corank.data.preprocessing import Preprocessing
from corank.data.shard_index import INDEX, Shard, ShardIndex
from corank.data.shards import ShardSource
from corank.data.tar import BLOCK, END, header, padded
from corank.errors import ConfigError, DataError, OutputError
from corank.files import write_whole
from corank.progress import Progress, silent

__all__ = ["SHARD_BYTES", "Packed", "pack"]

SHARD_BYTES = 256_000_000
AT_ONCE = 64  # images


@dataclass(frozen=True)
class Packed:
    """What was written: where, how many samples in how many shards, and the bytes of all files together."""

    folder: Path
    samples: int
    shards: int
    size_bytes: int


def pack(
    images: ImageSet,
    folder: str | Path,
    *,
    decoded: bool = False,
    shard_bytes: int = SHARD_BYTES,
    shuffle: int | None = None,
    progress: Progress | None = None,
) -> Packed:
    """Writes a set of images as shards, which every `--data` and :func:`corank.data.load` read.

    Args:
        images: of a folder, a .zip, an .npz or other shards; see :func:`corank.data.load`.
        folder: of the shards and their index; it must be new, or empty. It appears whole or not at all.
        decoded: store pixels, uint8, in the place of files: larger, and read without decoding. They are resized and
            cropped as the set's preprocessing says, and then serve networks of that size alone. Arrays are always
            stored as pixels.
        shard_bytes: of a shard, at most, but for one that a single image fills.
        shuffle: a seed that draws the order of the samples; None keeps that of the set. Shards that are read one after
            the other (by URL) mix only samples of neighbouring shards.
        progress: called with (what, done, total).

    Raises:
        DataError: an image that cannot be read; inputs that are no pixels.
        ConfigError: a size or a seed that cannot be.
        OutputError: the folder is there, or cannot be written; nothing is left behind.
    """
    target = Path(folder)
    if shard_bytes < 4 * BLOCK:
        raise ConfigError(f"shards of {shard_bytes} bytes hold no image; give some MB, such as 256_000_000")
    if shuffle is not None and not 0 <= shuffle < 2**32:
        raise ConfigError(f"shuffle is {shuffle}; give a seed from 0 to 2**32 - 1, or None")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise OutputError(f"cannot write shards to {target}: it is there already; give the name of a new folder")
    prepared = _prepared(images, decoded)
    scratch = target.with_name(f".{target.name[:40]}.{secrets.token_hex(8)}.tmp")
    try:
        scratch.mkdir(parents=True)
        try:
            order = (
                np.arange(len(images)) if shuffle is None else np.random.RandomState(shuffle).permutation(len(images))
            )
            labels = None if images.labels is None else images.labels[order]
            with closing(_Writer(scratch, shard_bytes)) as writer:
                for place, (kind, data) in enumerate(_files(images, order, prepared)):
                    writer.add(kind, data, None if labels is None else int(labels[place]))
                    (progress or silent)("packing", place + 1, len(images))
                index = writer.finish(labels, images.class_names, prepared)
            write_whole(scratch / INDEX, index.to_bytes())
            size_bytes = sum(entry.stat().st_size for entry in scratch.iterdir())
            scratch.replace(target)  # an empty folder may stand there
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"cannot write shards to {target}: {error.strerror or error}; give another folder") from error
    return Packed(target, len(images), len(index.shards), size_bytes)


def _prepared(images: ImageSet, decoded: bool) -> Preprocessing | None:
    """How pixels that are to be stored come to their size and channels; None where files are stored."""
    source, how = images.source, replace(images.preprocessing, mean=None, std=None)
    if isinstance(source, ShardSource) and source.index.prepared is not None:
        own = source.index.prepared
        return replace(own, channels=how.channels) if own.image_size is not None else _sized(how, decoded)
    if isinstance(source, PixelSource):
        return _sized(how, decoded)
    if not isinstance(source, (FolderSource, ArchiveSource, ShardSource)):
        raise DataError(
            f"these images come from a {type(source).__name__}, which has no pixels as uint8; pack a folder, a .zip, "
            "an .npz, or a function that returns uint8 images (N, H, W, 3)"
        )
    return how if decoded else None


def _sized(how: Preprocessing, decoded: bool) -> Preprocessing:
    """Arrays keep their size unless decoded pixels of another were asked for."""
    return how if decoded else Preprocessing(channels=how.channels)


def _files(images: ImageSet, order: NDArray[np.int64], prepared: Preprocessing | None) -> Iterator[tuple[str, bytes]]:
    """Suffix and bytes of each member to write."""
    positions = order if images.indices is None else images.indices[order]
    for start in range(0, len(positions), AT_ONCE):
        part = positions[start : start + AT_ONCE]
        if prepared is not None:
            yield from (("npy", pixel_file(image)) for image in _pixels(images, part, prepared))
            continue
        names = _names(images, part)
        yield from ((format_of(data, name), data) for data, name in zip(_bytes(images, part), names, strict=True))


def _bytes(images: ImageSet, part: NDArray[np.int64]) -> list[bytes]:
    source = images.source
    if isinstance(source, ShardSource):
        return source.files(part)
    assert isinstance(source, (FolderSource, ArchiveSource))
    return [source.read(index) for index in part.tolist()]


def _names(images: ImageSet, part: NDArray[np.int64]) -> list[str]:
    source = images.source
    if isinstance(source, ShardSource):
        return [source.index.name(index) for index in part.tolist()]
    assert isinstance(source, (FolderSource, ArchiveSource))
    return [source.names[index] for index in part.tolist()]


def _pixels(images: ImageSet, part: NDArray[np.int64], prepared: Preprocessing) -> list[NDArray[np.uint8]]:
    source = images.source
    if isinstance(source, PixelSource):
        return [prepared(source.pixels[index]) for index in part]
    if isinstance(source, ShardSource):
        return source.images(part, prepared)
    assert isinstance(source, (FolderSource, ArchiveSource))
    return decode_files(source.read, source.names, part, prepared)


class _Writer:
    """Shards under way; one is open at a time."""

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self._folder, self._shard_bytes = folder, shard_bytes
        self._file: BinaryIO | None = None
        self._shards: list[Shard] = []
        self._position = self._samples = 0
        self._places: list[tuple[int, int, int]] = []  # offset, size and checksum of each image

    def add(self, kind: str, data: bytes, label: int | None) -> None:
        """Appends a sample."""
        key = f"{len(self._places):09d}"
        image = header(f"{key}.{kind}", len(data))
        block = image + padded(data)
        if label is not None:
            text = str(label).encode()
            block += header(f"{key}.cls", len(text)) + padded(text)
        if self._samples and self._position + len(block) + len(END) > self._shard_bytes:
            self._end_shard()
        if self._file is None:
            self._file = (self._folder / self._name).open("xb")
        self._file.write(block)
        self._places.append((self._position + len(image), len(data), zlib.crc32(data)))
        self._position += len(block)
        self._samples += 1

    def finish(
        self, labels: NDArray[np.int64] | None, classes: tuple[str, ...] | None, prepared: Preprocessing | None
    ) -> ShardIndex:
        """The index of all that was added."""
        self._end_shard()
        places = np.array(self._places, dtype=np.int64).T
        return ShardIndex(
            tuple(self._shards),
            places[0].copy(),
            places[1].copy(),
            places[2].astype(np.uint32),
            labels,
            classes,
            prepared,
        )

    @property
    def _name(self) -> str:
        return f"shard-{len(self._shards):05d}.tar"

    def close(self) -> None:
        """Closes what is open, whole or not."""
        if self._file is not None:
            self._file.close()

    def _end_shard(self) -> None:
        assert self._file is not None
        with self._file as file:
            file.write(END)
            file.flush()
            os.fsync(file.fileno())
        self._shards.append(Shard(self._name, self._position + len(END), self._samples))
        self._file, self._position, self._samples = None, 0, 0
