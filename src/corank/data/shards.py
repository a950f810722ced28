"""Images in shards: tar files that are read in place, each image at the offset that an index gives.

Shapes: N images, H rows and W columns of pixels, C channels.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corank.data.decode import decode_files, stack
from corank.data.images import ImageSet
from corank.data.pixel_file import pixels_of
from corank.data.preprocessing import Preprocessing
from corank.data.remote import RemoteShards, is_url, read_remote
from corank.data.shard_index import AGAIN, INDEX, ShardIndex
from corank.data.shard_scan import scan
from corank.data.shard_store import LocalShards, ShardStore
from corank.errors import DataError

__all__ = ["ShardSource", "are_shards", "load_shards", "shards_in_turn"]

IN_TURN_BYTES = 16_000_000_000  # of shards that are read one after the other, since no memory keeps them all


@dataclass(frozen=True, eq=False)
class ShardSource:
    """Images in shards.

    Args:
        store: gives the shards' bytes.
        index: where each image stands.
    """

    store: ShardStore
    index: ShardIndex

    def __len__(self) -> int:
        return len(self.index)

    def batch(self, indices: NDArray[np.int64], preprocessing: Preprocessing) -> Tensor:
        """The images at `indices`: float32 (N, C, H, W)."""
        images = self.images(indices, preprocessing)
        if len({image.shape for image in images}) == 1:
            return preprocessing.normalise(torch.from_numpy(np.stack(images)))
        return preprocessing.normalise(stack(images, [self.index.name(index) for index in indices.tolist()]))

    def images(self, indices: NDArray[np.int64], preprocessing: Preprocessing) -> list[NDArray[np.uint8]]:
        """The images at `indices` before they are normalised: each uint8 (H, W, C)."""
        files = self.files(indices)
        if self.index.prepared is None:
            names = [self.index.name(int(index)) for index in indices]
            return decode_files(files.__getitem__, names, np.arange(len(files)), preprocessing)
        own = _fitting(self.index.prepared, preprocessing)
        return [own(pixels_of(data, lambda at=at: self.index.name(int(indices[at])))) for at, data in enumerate(files)]

    def files(self, indices: NDArray[np.int64]) -> list[bytes]:
        """The bytes of the images at `indices`, as they were packed.

        Raises:
            DataError: a shard that is not there, cut short or damaged; its name is in the message.
        """
        index, found = self.index, [b""] * len(indices)
        numbers = index.shard_of(indices)
        for number in np.unique(numbers):
            places = np.flatnonzero(numbers == number)
            own = indices[places]
            spans = list(zip(index.offsets[own].tolist(), index.sizes[own].tolist(), strict=True))
            for place, data in zip(places.tolist(), self.store.read(index.shards[number], spans), strict=True):
                found[place] = data
        if index.checksums is not None:
            for data, one in zip(found, indices.tolist(), strict=True):
                if zlib.crc32(data) != index.checksums[one]:
                    raise DataError(f"{index.name(one)} is damaged, or its index is another set's; copy both again")
        return found


def are_shards(path: Path) -> bool:
    """Whether a folder or a file holds shards: a .tar, or a folder of an index or of nothing but .tar files."""
    if path.is_file():
        return path.suffix.lower() == ".tar"
    if (path / INDEX).is_file():
        return True
    seen = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    return any(entry.suffix.lower() == ".tar" for entry in seen) and all(entry.is_file() for entry in seen)


def load_shards(place: Path | str, preprocessing: Preprocessing | None = None) -> ImageSet:
    """Images of shards, in the order in which they were packed.

    Args:
        place: a folder that `corank pack` wrote, or a URL of one that fsspec reads; or a .tar, or a folder of such, in
            the format of the package webdataset: files of one name before the first dot are a sample, of which one is
            an image, and `.cls` its class. Without any `.cls`, folders in the .tar are classes.
        preprocessing: None keeps each image's size and channels.

    Raises:
        DataError: nothing there, shards that are cut short or damaged, an index that does not fit; pixels that were
            packed for another size.
        ConfigError: a URL whose package is missing.
    """
    if isinstance(place, str) and is_url(place):
        index = ShardIndex.read(read_remote(place, INDEX), f"{place.rstrip('/')}/{INDEX}")
        source = ShardSource(RemoteShards(place), index)
    else:
        path = Path(place)
        folder = path.parent if path.is_file() else path
        given = folder / INDEX
        has_index = path.is_dir() and given.is_file()
        index = ShardIndex.read(given, str(given)) if has_index else scan(folder, _shards_at(path))
        source = ShardSource(LocalShards(folder), index)
    if index.prepared is not None:
        own = Preprocessing(channels=index.prepared.channels)
        _fitting(index.prepared, preprocessing or own)
    else:
        own = Preprocessing()
    return ImageSet(source, preprocessing or own, index.labels, index.class_names)


def shards_in_turn(images: ImageSet) -> NDArray[np.int64] | None:
    """The number of each image's shard where shards are read one after the other: int64 (N,).

    None for images that can be read in any order: those of other sources, and of shards on this machine that take at
    most 16 GB together. It depends on the shards alone, so that a run's order does not depend on the machine.
    """
    source = images.source
    if not isinstance(source, ShardSource):
        return None
    if not source.store.is_far and sum(shard.size_bytes for shard in source.index.shards) <= IN_TURN_BYTES:
        return None
    return source.index.shard_of(np.arange(len(source)) if images.indices is None else images.indices)


def _shards_at(path: Path) -> Sequence[str]:
    if path.is_file():
        return [path.name]
    if not path.is_dir():
        raise DataError(f"there is no folder {path}, and no file; give a folder of shards, or a .tar")
    return sorted(entry.name for entry in path.iterdir() if entry.suffix.lower() == ".tar" and entry.is_file())


def _fitting(prepared: Preprocessing, asked: Preprocessing) -> Preprocessing:
    """What is left to be done to stored pixels.

    Raises:
        DataError: they were resized for another network.
    """
    if prepared.image_size is None:
        return asked
    if asked.image_size is not None:
        stored, wanted = (replace(one, mean=None, std=None, channels=3) for one in (prepared, asked))
        if stored != wanted:
            raise DataError(
                f"these shards hold pixels at {_said(prepared)}, and {_said(asked)} is asked for; {AGAIN} --decoded "
                f"--image-size {asked.image_size}, or --model MODEL; without --decoded shards serve every size"
            )
    return replace(asked, image_size=None)


def _said(how: Preprocessing) -> str:
    return f"size {how.image_size} (crop {how.crop:g}, {how.interpolation})"
