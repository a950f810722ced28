"""The bytes of an artifact: a safetensors file of one tensor, in which numbers, header and hash follow one another.

safetensors describes each tensor in about 60 bytes of JSON, and metadata has to be text. One tensor of bytes is
smaller, and every safetensors reader opens it. ``docs/artifact.md`` has the layout.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from corank.errors import ArtifactError
from corank.storage.header import DTYPES, read_tensors
from corank.storage.model_record import ModelRecord
from corank.storage.packed_header import pack_header, unpack_header
from corank.storage.placement import blob_sizes

__all__ = [
    "ADAPTER_TENSOR",
    "FORMAT",
    "FORMAT_OF_CODED_NUMBERS",
    "TENSOR",
    "blob_order",
    "coded_sizes",
    "file_bytes",
    "framed",
    "header_in",
    "numbers_in",
    "written",
]

FORMAT, FORMAT_OF_CODED_NUMBERS = 3, 4
TENSOR = "corank"
"""The name of the one tensor."""
ADAPTER_TENSOR = "corank-adapter"
"""That of a task's adapter."""

_HASH_BYTES = 32
_END_BYTES = 5 + _HASH_BYTES  # the length of the header, the format, the hash
_DTYPES = {**DTYPES, "codes": torch.uint8, "scales": torch.float16}


def written(header: Mapping[str, Any], blobs: Mapping[str, Tensor]) -> bytes:
    """The file of a header and its blobs, as :class:`~corank.storage.contents.ArtifactContents` has them."""
    block = pack_header(header)
    parts = [blobs[name].contiguous().view(torch.uint8).numpy().data for name in blob_order(blobs)]
    given = FORMAT_OF_CODED_NUMBERS if "numbers" in header else FORMAT
    parts += [memoryview(block), memoryview(len(block).to_bytes(4, "little") + bytes([given]))]
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    size = sum(part.nbytes for part in parts) + _HASH_BYTES
    return b"".join([_frame(size), *parts, total.digest()])


def framed(name: str, content: bytes) -> bytes:
    """A safetensors file of one tensor of bytes of that name."""
    return _frame(len(content), name) + content


def file_bytes(header: Mapping[str, Any], number_bytes: int) -> int:
    """The size of the file that :func:`written` gives, of blobs that take so many bytes."""
    size = number_bytes + len(pack_header(header)) + _END_BYTES
    return len(_frame(size)) + size


def header_in(whole: Tensor) -> tuple[dict[str, Any], Tensor]:
    """The header, its entries still to be checked, and the bytes of all blobs, from the one tensor of a file.

    Raises:
        ArtifactError: for a tensor that is no artifact, of another format, or altered.
    """
    if whole.dtype != torch.uint8 or whole.dim() != 1 or len(whole) < _END_BYTES:
        raise ArtifactError(
            f"its tensor is {whole.dtype} {tuple(whole.shape)}, not a row of {_END_BYTES} bytes or more"
        )
    end = len(whole) - _END_BYTES
    *length, given = whole[end : end + 5].tolist()
    if given not in (FORMAT, FORMAT_OF_CODED_NUMBERS):
        raise ArtifactError(
            f"it is of format {given}; this version reads formats 1 to {FORMAT_OF_CODED_NUMBERS}; upgrade corank"
        )
    if hashlib.sha256(whole[:-_HASH_BYTES].numpy().data).digest() != bytes(whole[-_HASH_BYTES:].tolist()):
        raise ArtifactError("it was altered: its SHA-256 does not match; copy the file anew")
    begin = end - int.from_bytes(bytes(length), "little")
    if begin < 0:
        raise ArtifactError("its header is longer than the file")
    header = {**unpack_header(whole[begin:end].numpy().tobytes()), "format": given}
    if ("numbers" in header) != (given == FORMAT_OF_CODED_NUMBERS):
        raise ArtifactError(f"an index of coded numbers belongs to format {FORMAT_OF_CODED_NUMBERS}, not to {given}")
    return header, whole[:begin]


def numbers_in(data: Tensor, header: Mapping[str, Any], run: ModelRecord) -> dict[str, Tensor]:
    """The blobs, by name, out of their bytes, coded ones as they are; codes are whatever the others leave.

    Raises:
        ArtifactError: when there are fewer bytes than the header needs.
    """
    sizes = {"scales": 2 * blob_sizes(run)[1]}
    for kind, shapes in read_tensors(header).items():
        sizes[kind] = _DTYPES[kind].itemsize * sum(math.prod(shape) for shape in shapes.values())
    coded = coded_sizes(header, sizes)
    sizes |= coded
    sizes["codes"] = len(data) - sum(sizes.values())
    if sizes["codes"] < 0:
        raise ArtifactError(f"the header needs {-sizes['codes']} bytes more than there are")
    blobs, at = dict[str, Tensor](), 0
    for name in blob_order(sizes):
        blobs[name] = _as_dtype(data[at : at + sizes[name]], torch.uint8 if name in coded else _DTYPES[name])
        at += sizes[name]
    return blobs


def coded_sizes(header: Mapping[str, Any], names: Iterable[str]) -> dict[str, int]:
    """The bytes of each blob whose numbers are coded, of those blobs that are not codes.

    Raises:
        ArtifactError: for an index that is not sound.
    """
    ordered, index = blob_order(set(names) - {"codes"}), header.get("numbers")
    if index is None:
        return {}
    if not isinstance(index, list) or len(index) != len(ordered) or any(type(size) is not int for size in index):
        raise ArtifactError(f"the index of coded numbers is not one whole number for each of {len(ordered)} blobs")
    if min(index) < 0 or max(index) >= 1 << 40:
        raise ArtifactError("the index of coded numbers has a size that cannot be")
    return {name: size for name, size in zip(ordered, index, strict=True) if size}


def blob_order(names: Iterable[str]) -> list[str]:
    """In which blobs follow one another: wide numbers first, so that each begins at a multiple of its own size."""
    return sorted(names, key=lambda name: (-_DTYPES[name].itemsize, name))


def _as_dtype(part: Tensor, dtype: torch.dtype) -> Tensor:
    # Another writer may have filled the frame to no multiple of 8; a copy begins where torch wants it.
    aligned = part.data_ptr() % dtype.itemsize == part.storage_offset() % dtype.itemsize == 0
    return (part if aligned else part.clone()).view(dtype)


def _frame(size: int, name: str = TENSOR) -> bytes:
    """What stands in front of a safetensors file of one tensor of so many bytes."""
    entry = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    text = json.dumps({name: entry}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
