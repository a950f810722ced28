"""Sizes of files as people write them: "1.2MB", "95 KB"."""

from __future__ import annotations

import re

from corank.errors import ConfigError

__all__ = ["format_size", "parse_size"]

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KIB": 1024,
    "MIB": 1024**2,
    "GIB": 1024**3,
}


def parse_size(size: int | str) -> int:
    """Bytes of ``120000``, "120KB" or "1.2 MB" (1 KB is 1000 bytes).

    Raises:
        ConfigError: for anything else.
    """
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", size) if isinstance(size, str) else None
    if found is None or found[2].upper() not in _UNITS or not 0 < float(found[1]) < 1e15:
        raise ConfigError(f"size={size!r}: give bytes or a text like '1.2MB' or '95KB' (1 KB is 1000 bytes)")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def format_size(size: int) -> str:
    """A size for a person: "83.1 KB"."""
    for unit, factor in (("GB", 1000**3), ("MB", 1000**2), ("KB", 1000)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
