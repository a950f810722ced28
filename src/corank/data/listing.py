"""Which names are images, and which class each belongs to: one rule for folders and archives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from corank.data.decode import EXTENSIONS
from corank.errors import DataError

__all__ = ["Listing", "is_hidden", "list_images"]

SPLITS = frozenset({"train", "training", "test", "val", "valid", "validation"})


@dataclass(frozen=True, eq=False)
class Listing:
    """Image names, sorted, with their classes where every image lies in a class folder.

    Args:
        names: paths below the root, with forward slashes.
        labels: int64 (N,), or None for a flat set.
        class_names: the class folders in sorted order, or None.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...] | None


def is_hidden(name: str) -> bool:
    """Whether a path's last part is one that archivers and file managers leave behind, or hidden."""
    return name.startswith(".") or name == "__MACOSX"


def list_images(files: Iterable[str], folders: Iterable[str], root: str) -> Listing:
    """Keep the images, sort them and read their classes from their folders.

    A single folder that holds everything is looked through; two or more folders with no image beside
    them are classes, empty ones included, so that an index means the same in every subset.

    Args:
        files: paths of files below the root, with forward slashes.
        folders: paths of folders below the root.
        root: what an error calls the place.

    Raises:
        DataError: no image, or folders that are splits (train, test) rather than classes.
    """
    seen = ((name, PurePosixPath(name).parts) for name in files if name.lower().endswith(EXTENSIONS))
    images = sorted((name, parts) for name, parts in seen if not any(map(is_hidden, parts)))
    if not images:
        raise DataError(f"{root} holds no image; looked for {' '.join(EXTENSIONS)} directly in it and in its folders")
    names, paths = tuple(name for name, _ in images), [parts for _, parts in images]
    directories = [PurePosixPath(name).parts for name in folders] + [parts[:-1] for parts in paths]
    depth = 0
    while (inside := _folders_at(directories, depth)) and len(inside) == 1 and _all_deeper(paths, depth):
        depth += 1
    if len(inside) < 2 or not _all_deeper(paths, depth):
        return Listing(names, None, None)
    if inside <= SPLITS:
        raise DataError(f"the folders of {root} are splits, not classes: {', '.join(sorted(inside))}; give one of them")
    classes = tuple(sorted(inside))
    index = {name: position for position, name in enumerate(classes)}
    labels = np.array([index[parts[depth]] for parts in paths], dtype=np.int64)
    return Listing(names, labels, classes)


def _folders_at(directories: list[tuple[str, ...]], depth: int) -> set[str]:
    visible = (parts for parts in directories if len(parts) > depth and not any(map(is_hidden, parts)))
    return {parts[depth] for parts in visible}


def _all_deeper(paths: list[tuple[str, ...]], depth: int) -> bool:
    return all(len(parts) > depth + 1 for parts in paths)
