"""Names of layers and tensors, each told by its way from another name: what is alike then compresses to almost nothing.

The names of a network's parts are paths, ``layer1.0.conv1``. Each is written as the way from a name that stands before
it: one dot for each part that is taken off the end, then the parts that are put on::

    layer1.0.conv1 -> layer1.0.conv2       .conv2
    layer1.0.conv2 -> layer1.1.conv1       ..1.conv1
    layer1.0.conv1 -> layer1.0.conv1.bias  bias
    layer1.0.conv1 -> layer1.0.conv1       (the empty text)

and ``/name`` is a whole name. In the list of layers the other name is the one before. All other lists are written
beside that of the layers: a place in it moves on by one with each name, and by one more for each ``>`` in front.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from corank.errors import ArtifactError

__all__ = ["BesideLayers", "chained", "unchained"]

_AHEAD = 64  # layers looked at for the one that a name is most like
_MOST_CHARACTERS = 1 << 24  # of a list's names: a way of a few characters can lead to a name of many


def chained(names: Sequence[str]) -> list[str]:
    """Each name as its way from the one before it."""
    _check_length(sum(map(len, names)))
    # From the name before: layers come in the network's order, where neighbours differ least.
    ways = [_shorter(_way(other.split("."), name), name) for other, name in pairwise(names)]
    return [*map(_whole, names[:1]), *ways]


def unchained(ways: Sequence[str]) -> list[str]:
    """The inverse of :func:`chained`.

    Raises:
        ArtifactError: for a way that leads nowhere, or names longer than any network's.
    """
    names: list[str] = []
    total = 0
    for way in ways:
        name = way[1:] if way[:1] == "/" else _along(names[-1] if names else None, way)
        # Counted while reading, before the next name grows out of this one.
        total += len(name)
        _check_length(total)
        names.append(name)
    return names


class BesideLayers:
    """One list of names, written or read beside the layers' names.

    Args:
        layers: their names, in order.
    """

    def __init__(self, layers: Sequence[str]) -> None:
        self._layers, self._parts = layers, [name.split(".") for name in layers]
        self._at = self._characters = 0

    def way(self, name: str) -> tuple[str, int | None]:
        """How a name is written, and the number of the layer that it is written beside, if any."""
        self._count(name)
        # The place only moves on, so that a list in the layers' own order needs no ``>`` at all.
        nearest = self._nearest(name.split("."))
        if nearest is None:
            return _whole(name), None
        way = _shorter(">" * (nearest - self._at) + _way(self._parts[nearest], name), name)
        if way[:1] == "/":
            return way, None
        self._at = nearest + 1
        return way, nearest

    def name(self, way: str) -> tuple[str, int | None]:
        """The inverse of :meth:`way`.

        Raises:
            ArtifactError: for a way that leads nowhere, or names longer than any network's.
        """
        if way[:1] == "/":
            self._count(way)
            return way[1:], None
        rest = way.lstrip(">")
        place = self._at + len(way) - len(rest)
        name = _along(self._layers[place] if place < len(self._layers) else None, rest)
        self._count(name)
        self._at = place + 1
        return name, place

    def _nearest(self, parts: Sequence[str]) -> int | None:
        """The first of the next layers that has the most in common with a name."""
        best, most = None, -1
        for place in range(self._at, min(self._at + _AHEAD, len(self._layers))):
            shared = _shared(self._parts[place], parts)
            if shared > most:
                best, most = place, shared
            # Siblings already; only a layer that is a part of the whole name could share more.
            if most >= len(parts) - 1:
                break
        return best

    def _count(self, name: str) -> None:
        self._characters += len(name)
        _check_length(self._characters)


def _whole(name: str) -> str:
    return f"/{name}"


def _shorter(way: str, name: str) -> str:
    """The way, or the whole name where that is shorter or the way would be read as one."""
    # The way may be a whole name already, which no sign may stand in front of.
    bare = way.lstrip(">")
    return way if bare[:1] != "/" and len(way) <= len(name) + 1 else _whole(name)


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many parts two names have in common, from the front."""
    count = 0
    for first, second in zip(one, other, strict=False):
        if first != second:
            break
        count += 1
    return count


def _way(other: Sequence[str], name: str) -> str:
    """From the parts of another name to a name; the whole name where what follows would be read as something else."""
    parts = name.split(".")
    kept = _shared(other, parts)
    rest = ".".join(parts[kept:])
    if rest[:1] in (".", "/", ">") or (not rest and len(parts) > kept):
        return _whole(name)
    return "." * (len(other) - kept) + rest


def _along(other: str | None, way: str) -> str:
    """The name that a way leads to from another: the inverse of :func:`_way`."""
    if other is None:
        raise ArtifactError(f"the header is not sound: the name {way[:40]!r} stands beside no other")
    rest, parts = way.lstrip("."), other.split(".")
    dropped = len(way) - len(rest)
    # A name of no parts may be left, one of fewer may not.
    if dropped > len(parts):
        raise ArtifactError(f"the header is not sound: {dropped} parts off the name {other[:40]!r}")
    kept = parts[: len(parts) - dropped]
    return ".".join([*kept, rest] if rest else kept)


def _check_length(total: int) -> None:
    if total > _MOST_CHARACTERS:
        raise ArtifactError(f"the header is not sound: names of more than {_MOST_CHARACTERS} characters in all")
