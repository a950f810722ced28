"""Formats 1 and 2, which earlier versions wrote: a blob for each kind of number, and the header as JSON beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from corank.errors import ArtifactError
from corank.storage.header import DTYPES, parse_object, unsound

__all__ = ["digest", "older_header"]

_FIXED, _CODED = 1, 2  # codes of fixed width, and codes that a coder wrote


def older_header(metadata: Mapping[str, str], blobs: Mapping[str, Tensor]) -> dict[str, Any]:
    """The header, its entries still to be checked, of a file whose metadata has a text ``corank``.

    Raises:
        ArtifactError: for one that is of another format, altered, or no header.
    """
    text = metadata["corank"]
    header = parse_object(text)
    given = header.get("format")
    if type(given) is not int:
        raise unsound("it has no format")
    if given not in (_FIXED, _CODED):
        raise ArtifactError(f"it is of format {given % (1 << 64)}; this version reads formats 1 to 4; upgrade corank")
    _check_flat(blobs)
    if digest(text, blobs) != metadata.get("sha256"):
        raise ArtifactError("it was altered: its SHA-256 does not match; copy the file anew")
    if "numbers" in header:
        raise unsound("coded numbers belong to format 4")
    if ({"coders", "coded"} & set(header)) != ({"coders", "coded"} if given == _CODED else set()):
        raise unsound(f"an index of coded runs belongs to format {_CODED}, and it is of format {given}")
    return header


def digest(header: str, blobs: Mapping[str, Tensor]) -> str:
    """SHA-256 over the header's text and all blobs, in hexadecimal."""
    total = hashlib.sha256(header.encode())
    for name in sorted(blobs):
        blob = blobs[name]
        total.update(f"\0{name}:{blob.dtype}:{blob.numel()}\0".encode())
        total.update(blob.contiguous().view(torch.uint8).numpy().data)
    return total.hexdigest()


def _check_flat(blobs: Mapping[str, Tensor]) -> None:
    known = set(DTYPES.values())
    for name, blob in blobs.items():
        if blob.dim() != 1 or blob.dtype not in known:
            raise ArtifactError(f"the blob {name[:80]!r} is {blob.dtype} {tuple(blob.shape)}; blobs are flat lists")
