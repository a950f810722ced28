"""Files in a .zip archive, read in place: nothing is extracted to disk."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from corank.data.decode import LARGEST_FILE_BYTES, decode_batch
from corank.data.images import ImageSet
from corank.data.listing import IMAGES, Kind, Listing, list_samples
from corank.data.preprocessing import Preprocessing
from corank.errors import DataError

__all__ = ["ArchiveSource", "listed_archive", "load_archive"]


@dataclass(frozen=True, eq=False)
class ArchiveSource:
    """Entries of an open archive; reading them is safe from several threads."""

    path: Path
    archive: zipfile.ZipFile
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def batch(self, indices: NDArray[np.int64], preprocessing: Preprocessing) -> Tensor:
        """The images at `indices`: float32 (N, C, H, W)."""
        return decode_batch(self.read, self.names, indices, preprocessing)

    def read(self, index: int) -> bytes:
        """The bytes of one entry; no more than a limit, and than it says that it holds."""
        entry = self.archive.getinfo(self.names[index])
        if entry.file_size > LARGEST_FILE_BYTES:
            raise DataError(
                f"{self.path}: the entry {entry.filename} says it holds {entry.file_size / 1e6:.0f} MB; "
                f"one may hold {LARGEST_FILE_BYTES / 1e6:.0f} MB"
            )
        try:
            with self.archive.open(entry) as stream:
                return stream.read(entry.file_size)
        except Exception as error:  # damaged, encrypted and unknown entries end in any of a dozen types
            raise DataError(f"{self.path}: the entry {entry.filename} cannot be read: {error}") from error


def load_archive(path: Path, preprocessing: Preprocessing | None = None) -> ImageSet:
    """Images of a .zip archive, sorted by their path in it.

    Args:
        path: a .zip of class folders (a class's index is its position in sorted order), or of images.
        preprocessing: None keeps each image's size and gives RGB.

    Raises:
        DataError: no such file, not a sound archive, no image in it.
    """
    archive, listing = listed_archive(path, IMAGES)
    source = ArchiveSource(path, archive, listing.names)
    return ImageSet(source, preprocessing or Preprocessing(), listing.labels, listing.class_names)


def listed_archive(path: Path, kind: Kind) -> tuple[zipfile.ZipFile, Listing]:
    """An open archive and its files of a kind.

    Raises:
        DataError: as :func:`load_archive`.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # a damaged directory ends in any of a few types
        raise DataError(f"{path} is not a sound .zip archive: {error}") from error
    files = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    folders = [entry.filename.rstrip("/") for entry in archive.infolist() if entry.is_dir()]
    return archive, list_samples(dict.fromkeys(files), folders, str(path), kind)
