"""The members of a tar file from strangers, found without reading or extracting them, and the headers of our own."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

from corank.data.decode import LARGEST_FILE_BYTES
from corank.errors import DataError

__all__ = ["BLOCK", "END", "Member", "header", "members", "padded"]

BLOCK = 512
END = bytes(2 * BLOCK)
PLAIN, FOLDER, IGNORED, OWN_PAX, LONG_NAME = (b"0", b"\0", b"7"), b"5", (b"g", b"K"), b"x", b"L"
LARGEST_NAME_BYTES = 65_536


class Member(NamedTuple):
    """A plain file in a tar: where its bytes stand."""

    name: str
    offset: int
    size: int


def members(read: Callable[[int, int], bytes], length: int, place: str) -> Iterator[Member]:
    """The plain files of a tar, in order; folders are passed over.

    Args:
        read: `(offset, size)` to the bytes there, fewer where the file ends.
        length: of the whole file.
        place: what an error calls it.

    Raises:
        DataError: cut short, damaged, a member of absurd size, a link or a device.
    """
    position, long_name = 0, None
    while True:
        block = read(position, BLOCK)
        if len(block) < BLOCK:
            raise DataError(f"{place} is cut short: it ends without the mark of a tar's end; copy or pack it again")
        if not any(block):
            return
        kind, size = block[156:157], _checked_size(block, place)
        name, start = long_name or _name(block), position + BLOCK
        position = start + -(-size // BLOCK) * BLOCK
        if start + size > length:
            raise DataError(f"{place} is cut short within the member {name!r}; copy or pack it again")
        if kind in (OWN_PAX, LONG_NAME, *IGNORED):
            if size > LARGEST_NAME_BYTES:
                raise DataError(f"{place} has a header of {size / 1e6:.1f} MB, which no file needs; pack it again")
            long_name = _further_name(kind, read(start, size), place) or long_name
            continue
        long_name = None
        if kind in PLAIN:
            yield Member(name, start, size)
        elif kind != FOLDER:
            raise DataError(f"the member {name!r} of {place} is a link or a device; pack plain files (tar -h)")


def header(name: str, size: int) -> bytes:
    """The block before a member: (512,) bytes, the same for the same name and size."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.USTAR_FORMAT)


def padded(data: bytes) -> bytes:
    """The bytes filled up with zeros to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def _checked_size(block: bytes, place: str) -> int:
    expected = sum(block) - sum(block[148:156]) + 8 * ord(" ")  # the sum counts its own field as spaces
    if _number(block[148:156]) != expected:
        raise DataError(f"{place} is damaged, or no tar: a header does not match its checksum; copy or pack it again")
    size = _number(block[124:136])
    if size is None or size > LARGEST_FILE_BYTES:
        said = "no size" if size is None else f"{size / 1e6:.0f} MB"
        raise DataError(
            f"the member {_name(block)!r} of {place} says it holds {said}; an image may hold "
            f"{LARGEST_FILE_BYTES / 1e6:.0f} MB"
        )
    return size


def _number(field: bytes) -> int | None:
    """An octal field, or a large number in binary; None for neither."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.split(b"\0")[0].strip()
    return int(digits, 8) if digits and set(digits) <= set(b"01234567") else None


def _name(block: bytes) -> str:
    name = block[:100].split(b"\0")[0]
    prefix = block[345:500].split(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "replace")


def _further_name(kind: bytes, data: bytes, place: str) -> str | None:
    """The name that a header before the member's own gives it."""
    if kind == LONG_NAME:
        return data.rstrip(b"\0").decode("utf-8", "replace")
    return _pax_path(data, place) if kind == OWN_PAX else None


def _pax_path(records: bytes, place: str) -> str | None:
    """The path in a member's extended header; a size of its own is for files that are refused anyway."""
    path = None
    while records.strip(b"\0"):
        length, _, _ = records.partition(b" ")
        count = int(length) if length.isdigit() and len(length) <= 6 else 0
        key, _, value = records[len(length) + 1 : max(count - 1, 0)].partition(b"=")
        if not key or records[count - 1 : count] != b"\n" or key == b"size" or key.startswith(b"GNU.sparse"):
            raise DataError(f"{place} has an extended header that cannot be read; pack it again")
        if key == b"path":
            path = value.decode("utf-8", "replace")
        records = records[count:]
    return path
