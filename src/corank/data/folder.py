"""Files in a folder: one folder per class, or all side by side."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from corank.data.decode import LARGEST_FILE_BYTES, decode_batch
from corank.data.images import ImageSet
from corank.data.listing import is_hidden, list_samples
from corank.data.preprocessing import Preprocessing
from corank.errors import DataError

__all__ = ["FolderSource", "load_file", "load_folder", "walk"]


@dataclass(frozen=True, eq=False)
class FolderSource:
    """Files below `root`, by name; images, where they are read as such."""

    root: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def batch(self, indices: NDArray[np.int64], preprocessing: Preprocessing) -> Tensor:
        """The images at `indices`: float32 (N, C, H, W)."""
        return decode_batch(self.read, self.names, indices, preprocessing)

    def read(self, index: int) -> bytes:
        """The bytes of one file; no more than a limit."""
        path = self.root / self.names[index]
        try:
            if path.stat().st_size > LARGEST_FILE_BYTES:
                raise DataError(f"{path} is larger than {LARGEST_FILE_BYTES / 1e6:.0f} MB; remove it")
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error}") from error


def load_folder(root: Path, preprocessing: Preprocessing | None = None) -> ImageSet:
    """Images below a folder, sorted by their path in it.

    Args:
        root: a folder of class folders (a class's index is its position in sorted order), or of images.
        preprocessing: None keeps each image's size and gives RGB.

    Raises:
        DataError: no such folder, or no image in it.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    files, folders = walk(root)
    listing = list_samples(files, folders, str(root))
    source = FolderSource(root, listing.names)
    return ImageSet(source, preprocessing or Preprocessing(), listing.labels, listing.class_names)


def load_file(path: Path, preprocessing: Preprocessing | None = None) -> ImageSet:
    """One image file as a set of one, without a label."""
    return ImageSet(FolderSource(path.parent, (path.name,)), preprocessing or Preprocessing())


def walk(root: Path) -> tuple[list[str], list[str]]:
    """Files and folders below the root; linked folders are followed, each real folder once per branch."""
    files: list[str] = []
    folders: list[str] = []
    ancestors: dict[str, frozenset[str]] = {str(root): frozenset({os.path.realpath(root)})}
    for place, inside, names in os.walk(root, followlinks=True):
        above = ancestors.pop(place)
        kept: list[str] = []
        for name in inside:
            real = os.path.realpath(os.path.join(place, name))
            if not is_hidden(name) and real not in above:
                kept.append(name)
                ancestors[os.path.join(place, name)] = above | {real}
        inside[:] = kept
        below = Path(place).relative_to(root)
        files += [(below / name).as_posix() for name in names]
        folders += [(below / name).as_posix() for name in kept]
    return files, folders
