"""The index of shards that have none, made from the headers of their members: those of the package webdataset, say."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from corank.data.decode import EXTENSIONS
from corank.data.listing import is_hidden, list_samples
from corank.data.preprocessing import Preprocessing
from corank.data.shard_index import Shard, ShardIndex
from corank.data.shard_store import read_at
from corank.data.tar import Member, members
from corank.errors import DataError

__all__ = ["scan"]

LABEL, PIXELS = "cls", "npy"
MOST_DIGITS = 18


class _Sample(NamedTuple):
    shard: int
    image: Member
    label: int | None

    @property
    def kind(self) -> str:
        return self.image.name.lower().rpartition(".")[2]


def scan(folder: Path, names: Sequence[str]) -> ShardIndex:
    """The index of the shards `names` in a folder, in this order.

    Raises:
        DataError: cut short, damaged, a sample without one image, a label that is no class, classes of some alone.
    """
    samples: list[_Sample] = []
    sizes: list[int] = []
    for number, name in enumerate(names):
        path = folder / name
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"the shard {path} cannot be read: {error.strerror or error}") from error
        try:
            sizes.append(os.fstat(file).st_size)
            samples += _samples(file, sizes[-1], number, f"the shard {path}")
        finally:
            os.close(file)
    if not samples:
        raise DataError(f"{folder} has no shard with an image; a shard is a .tar of images, each with its .cls")
    labelled = sum(one.label is not None for one in samples)
    if labelled == 0:
        samples, labels, classes = _by_folders(samples, str(folder))
    elif labelled < len(samples):
        bare = next(one for one in samples if one.label is None)
        raise DataError(f"{names[bare.shard]}: {bare.image.name} has no .cls, and others have; label all or none")
    else:
        labels, classes = np.array([one.label for one in samples], dtype=np.int64), None
    return _index(samples, [*zip(names, sizes, strict=True)], labels, classes)


def _index(
    samples: list[_Sample],
    shards: list[tuple[str, int]],
    labels: NDArray[np.int64] | None,
    classes: tuple[str, ...] | None,
) -> ShardIndex:
    decoded = [one.kind == PIXELS for one in samples]
    if any(decoded) and not all(decoded):
        raise DataError(f"{shards[0][0]} and others hold files of images beside arrays of pixels; pack either")
    counts = np.bincount([one.shard for one in samples], minlength=len(shards)).tolist()
    kept = [Shard(name, size, count) for (name, size), count in zip(shards, counts, strict=True) if count]
    return ShardIndex(
        tuple(kept),
        np.array([one.image.offset for one in samples], dtype=np.int64),
        np.array([one.image.size for one in samples], dtype=np.int64),
        None,
        labels,
        classes,
        Preprocessing() if all(decoded) else None,
    )


def _samples(file: int, length: int, number: int, place: str) -> Iterator[_Sample]:
    """Samples of a shard: neighbours of one name before the first dot."""
    key, parts = "", {}
    seen: set[str] = set()
    for member in members(lambda offset, size: read_at(file, offset, size), length, place):
        folder, _, name = member.name.rpartition("/")
        if any(map(is_hidden, member.name.split("/"))):
            continue
        stem, _, kind = name.partition(".")
        own = f"{folder}/{stem}"
        if own != key:
            if parts:
                yield _sample(file, number, parts, place)
            key, parts = own, {}
            if own in seen:
                raise DataError(
                    f"{place} has two samples of the name {own.strip('/')}; give each its own, and pack again"
                )
            seen.add(own)
        if kind.lower() in parts:
            raise DataError(f"{place} has two members of the name {member.name}; pack it again")
        parts[kind.lower()] = member
    if parts:
        yield _sample(file, number, parts, place)


def _sample(file: int, number: int, parts: dict[str, Member], place: str) -> _Sample:
    images = [part for kind, part in parts.items() if kind == PIXELS or f".{kind}" in EXTENSIONS]
    name = next(iter(parts.values())).name
    if len(images) != 1 or images[0].size == 0:
        raise DataError(
            f"{place}: the sample of {name} has {len(images)} images among its members ({', '.join(parts)}); each "
            "sample has one, such as 000001.jpg beside 000001.cls: take the others out"
        )
    label = None
    if LABEL in parts:
        text = read_at(file, parts[LABEL].offset, min(parts[LABEL].size, MOST_DIGITS + 2)).strip()
        if not text.isdigit() or len(text) > MOST_DIGITS:
            raise DataError(f"{place}: {parts[LABEL].name} is no class; it holds one whole number from 0")
        label = int(text)
    return _Sample(number, images[0], label)


def _by_folders(
    samples: list[_Sample], root: str
) -> tuple[list[_Sample], NDArray[np.int64] | None, tuple[str, ...] | None]:
    """Samples as they are, with the classes of their folders, if they have any."""
    named = {one.image.name: one for one in samples}
    if len(named) < len(samples) or samples[0].kind == PIXELS:
        return samples, None, None
    listing = list_samples(named, [], root)
    if listing.labels is None or len(listing.names) != len(samples):
        return samples, None, None
    label_of = dict(zip(listing.names, listing.labels.tolist(), strict=True))
    return samples, np.array([label_of[one.image.name] for one in samples], dtype=np.int64), listing.class_names
