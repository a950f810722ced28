"""Whole numbers of about the same size in few bytes: each less the smallest, all in the bits that the largest takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from corank.errors import ArtifactError

__all__ = ["ColumnReader", "column"]

_MOST_BITS = 62  # of a number, so that sums of them stay whole numbers of 64 bits


def column(values: Sequence[int]) -> bytes:
    """The smallest value (zigzag, 7 bits a byte), the width (1 byte), then each value less the smallest in that width.

    Most significant bit first, zeros at the end. No values take no bytes.

    Raises:
        ArtifactError: for values that lie 2^62 or more apart.
    """
    if not values:
        return b""
    least = min(values)
    width = (max(values) - least).bit_length()
    if width > _MOST_BITS or abs(least) >= 1 << _MOST_BITS:
        raise ArtifactError(f"numbers from {least} to {max(values)} do not fit in a file's 62 bits")
    rest = np.array([value - least for value in values], np.int64)
    # One width for all, not one for each number: numbers of a column are alike, and a width of its own costs more.
    bits = (rest[:, None] >> np.arange(width - 1, -1, -1)) & 1
    # Zigzag: 0, -1, 1, -2, ... become 0, 1, 2, 3, ..., so that a small negative number is a small one too.
    return _varint(2 * least if least >= 0 else -2 * least - 1) + bytes([width]) + np.packbits(bits).tobytes()


class ColumnReader:
    """Reads one column after another; no more is allocated than the bytes allow for.

    Args:
        data: what :func:`column` gave, one after the other.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> list[int]:
        """The next column, of ``count`` values.

        Raises:
            ArtifactError: where it is not there.
        """
        if not count:
            return []
        zigzag = self._varint()
        width = self._take(1)[0]
        if width > _MOST_BITS:
            raise ArtifactError(f"the header is not sound: numbers of {width} bits")
        least = zigzag // 2 if zigzag % 2 == 0 else -(zigzag + 1) // 2
        # All alike: no bytes, and so nothing here bounds the count; it comes from lists in the text, which does.
        if not width:
            return [least] * count
        packed = np.frombuffer(self._take((count * width + 7) // 8), np.uint8)
        bits = np.unpackbits(packed, count=count * width).reshape(count, width).astype(np.int64)
        return [least + value for value in (bits << np.arange(width - 1, -1, -1)).sum(1).tolist()]

    def finish(self) -> None:
        """Raises ArtifactError where bytes are left over."""
        if self._at != len(self._data):
            raise ArtifactError("the header is not sound: it goes on behind its end")

    def _take(self, size: int) -> bytes:
        if self._at + size > len(self._data):
            raise ArtifactError("the header is not sound: its numbers end early")
        self._at += size
        return self._data[self._at - size : self._at]

    def _varint(self) -> int:
        value = 0
        # Ten bytes at most, or a file of set high bits would make one endless number.
        for shift in range(0, _MOST_BITS + 2, 7):
            byte = self._take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ArtifactError("the header is not sound: a number without end")


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(128 | value & 127)
        value >>= 7
    return bytes([*found, value])
