"""Which names are samples, and which class each belongs to: one rule for folders and archives, images and sounds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from corank.data.decode import EXTENSIONS
from corank.errors import DataError

__all__ = ["IMAGES", "Kind", "Listing", "is_hidden", "list_samples"]

SPLITS = frozenset({"train", "training", "test", "val", "valid", "validation"})


@dataclass(frozen=True)
class Kind:
    """What is looked for: what one is called, and the endings of its files."""

    what: str
    extensions: tuple[str, ...]


IMAGES = Kind("image", EXTENSIONS)


@dataclass(frozen=True, eq=False)
class Listing:
    """File names, sorted, with their classes where every file lies in a class folder.

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


def list_samples(files: Iterable[str], folders: Iterable[str], root: str, kind: Kind = IMAGES) -> Listing:
    """Keep the files of a kind, sort them and read their classes from their folders.

    A single folder that holds everything is looked through; two or more folders with no such file beside
    them are classes, empty ones included, so that an index means the same in every subset.

    Args:
        files: paths of files below the root, with forward slashes.
        folders: paths of folders below the root.
        root: what an error calls the place.
        kind: of the files.

    Raises:
        DataError: no such file, or folders that are splits (train, test) rather than classes.
    """
    seen = ((name, PurePosixPath(name).parts) for name in files if name.lower().endswith(kind.extensions))
    found = sorted((name, parts) for name, parts in seen if not any(map(is_hidden, parts)))
    if not found:
        raise DataError(
            f"{root} holds no {kind.what}; looked for {' '.join(kind.extensions)} directly in it and in its folders"
        )
    names, paths = tuple(name for name, _ in found), [parts for _, parts in found]
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
