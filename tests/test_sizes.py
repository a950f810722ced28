"""Sizes as people write them, and back."""

from __future__ import annotations

import pytest

from corank.errors import ConfigError
from corank.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"), [(120000, 120000), ("120000", 120000), ("1.2MB", 1200000), ("95 kb", 95000), ("2KiB", 2048)]
)
def test_reads(text: int | str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", [0, -1, True, "", "0", "12 parsecs", "1e5", "MB", 1.5])
def test_refuses(text: object) -> None:
    with pytest.raises(ConfigError, match="give bytes or a text like"):
        parse_size(text)  # pyright: ignore[reportArgumentType]


def test_shows() -> None:
    assert [format_size(size) for size in (999, 83100, 1_200_000)] == ["999 bytes", "83.1 KB", "1.2 MB"]
