"""A set of recordings: sounds in a folder or .zip, with what their names say of each.

Shapes: N recordings of T samples.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corank.data.archive import ArchiveSource, listed_archive
from corank.data.folder import FolderSource, walk
from corank.data.images import ImageSet
from corank.data.listing import Kind, Listing, is_hidden, list_samples
from corank.data.naming import NamePattern, chosen_by
from corank.data.preprocessing import Preprocessing
from corank.data.sampling import Sampling
from corank.data.sound_file import SOUND_EXTENSIONS, Heard, hear
from corank.errors import CorankWarning, DataError

__all__ = ["SOUNDS", "RecordingSource", "load_recordings", "matching", "name_parts"]

SOUNDS = Kind("recording", SOUND_EXTENSIONS)
WORKERS = 4


class Files(Protocol):
    """Where the bytes come from."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the files."""
        ...

    def read(self, index: int) -> bytes:
        """The bytes of one."""
        ...


@dataclass(frozen=True, eq=False)
class RecordingSource:
    """Sound files by name, decoded when they are read; safe from several threads.

    Attributes:
        files: where they are.
        sampling: what the network hears.
        parts: what names say, such as "label" and "group": of each file.
        said: kinds of remarks that were made; each is made once.
    """

    files: Files
    sampling: Sampling
    parts: Mapping[str, tuple[str, ...]]
    said: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.files.names)

    def batch(self, indices: NDArray[np.int64], preprocessing: Preprocessing) -> Tensor:
        """The recordings at `indices`: float32 (N, T); `preprocessing` is of images and has nothing to do."""
        with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1, len(indices))) as pool:
            heard = list(pool.map(self._heard, indices.tolist()))
        for one in heard:
            for kind, remark in one.remarks.items():
                if kind not in self.said:
                    self.said.add(kind)
                    warnings.warn(remark, CorankWarning, stacklevel=2)
        return torch.from_numpy(np.stack([one.samples for one in heard]))

    def _heard(self, index: int) -> Heard:
        return hear(self.files.read(index), self.files.names[index], self.sampling)


def load_recordings(place: str | Path, sampling: Sampling, label: str | None = None) -> ImageSet:
    """Recordings below a folder or in a .zip, sorted by their path; nothing is decoded yet.

    Args:
        place: a folder or .zip of class folders, or of recordings; or one sound file.
        sampling: rate and length that the network hears.
        label: a pattern of their names, such as "{label}_{group}_{index}" (:class:`~corank.data.naming.NamePattern`);
            None: classes are folders. A class's index is its position in sorted order.

    Returns:
        A set whose batches are float32 (N, T). Other files than sounds are left out, which a
        :class:`~corank.errors.CorankWarning` says.

    Raises:
        DataError: nothing there, no recording in it, or a name that is not of the pattern.
    """
    path = Path(place).expanduser()
    pattern = None if label is None else NamePattern(label)
    files, listing = _found(path)
    parts: dict[str, tuple[str, ...]] = {}
    labels, classes = listing.labels, listing.class_names
    if pattern is not None:
        said = [pattern(name) for name in listing.names]
        parts = {name: tuple(one[name] for one in said) for name in pattern.fields}
        classes = tuple(sorted(set(parts["label"])))
        index = {name: place for place, name in enumerate(classes)}
        labels = np.array([index[one] for one in parts["label"]], np.int64)
    elif labels is not None and classes is not None:
        parts = {"label": tuple(classes[one] for one in labels)}
    source = RecordingSource(files, sampling, parts)
    return ImageSet(source, Preprocessing(channels=1), labels, classes)


def name_parts(recordings: ImageSet) -> dict[str, list[str]]:
    """What the names of a set of recordings say, such as "label" and "group": of each, in order.

    Raises:
        DataError: no set of recordings.
    """
    source = recordings.source
    if not isinstance(source, RecordingSource):
        raise DataError("only recordings have parts of names: load_samples(PATH, sampling=Sampling(16000), label=...)")
    places = range(len(source)) if recordings.indices is None else recordings.indices.tolist()
    return {name: [values[place] for place in places] for name, values in source.parts.items()}


def matching(recordings: ImageSet, condition: str) -> ImageSet:
    """The recordings whose names say what is asked, such as "group!=theo" or "index<5&group=theo|lucas".

    Raises:
        DataError: no condition, a part that names do not have, or none fulfils it.
    """
    return recordings.select(chosen_by(condition, name_parts(recordings)))


def _found(path: Path) -> tuple[Files, Listing]:
    """The files of a place and their classes; says once which are no sounds."""
    if path.is_file() and path.suffix.lower() in SOUND_EXTENSIONS:
        return FolderSource(path.parent, (path.name,)), Listing((path.name,), None, None)
    if path.is_dir():
        names, folders = walk(path)
        listing = list_samples(names, folders, str(path), SOUNDS)
        files: Files = FolderSource(path, listing.names)
    elif path.suffix.lower() == ".zip":
        archive, listing = listed_archive(path, SOUNDS)
        names, files = archive.namelist(), ArchiveSource(path, archive, listing.names)
    else:
        raise DataError(f"no recordings at {str(path)!r}: give a folder, a .zip or a sound file, such as word.wav")
    _tell_others(path, names, listing)
    return files, listing


def _tell_others(path: Path, names: Sequence[str], listing: Listing) -> None:
    kept = set(listing.names)
    others = [
        name
        for name in names
        if name not in kept and not name.endswith("/") and not any(map(is_hidden, PurePosixPath(name).parts))
    ]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        warnings.warn(
            f"{path}: {others[0]}{more} is no recording, by its ending, and left out; looked for "
            f"{' '.join(SOUND_EXTENSIONS)}",
            CorankWarning,
            stacklevel=4,
        )
