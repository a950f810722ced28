"""Scales, biases and norms in fewer bytes, exactly: as whole numbers, which the coder of codes writes.

``N`` numbers of one blob, which are those of ``T`` tensors one after the other. fp16 numbers of a tensor are multiples
of a power of two, ``k 2^e``: where all of its ``k`` fit in 15 bits and a sign they are written (numbers on a grid are
small whole numbers then). Else each number is the 15 bits that fp16 has behind its sign, read as a whole number, so
that exponents take what they tell. Of wider numbers the upper 16 bits are written so, and the others as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from corank.errors import ArtifactError
from corank.kernels.adaptive import has_kernel
from corank.kernels.adaptive_tables import Layout
from corank.kernels.carried import LearnedCodes
from corank.storage.artifact_file import blob_order, coded_sizes
from corank.storage.contents import ArtifactContents
from corank.storage.header import DTYPES, read_tensors
from corank.storage.model_record import ModelRecord
from corank.storage.placement import placed_tensors

__all__ = ["number_counts", "read_numbers", "with_coded_numbers", "with_plain_numbers", "written_numbers"]

_CODED = ("float16", "bfloat16", "float32", "scales")
_LAYOUT = Layout(1, 32767)
_PATTERN, _LEAST, _GREATEST = -25, -24, 15  # in place of e: a tensor of bits; the least and greatest e there are
_MOST_NUMBERS, _BY_PYTHON = 1 << 22, 1 << 14  # of a blob, which take a second or two
_MOST_EXPANDED, _SMALL_BYTES = 64, 1 << 20  # what is no larger than either is no bomb


def with_coded_numbers(run: ModelRecord, contents: ArtifactContents) -> ArtifactContents:
    """The same with numbers that are no codes coded as well, blob by blob, where that is smaller."""
    counts = number_counts(run, contents.header)
    written = {kind: written_numbers(kind, contents.blobs[kind], own) for kind, own in counts.items()}
    coded = {kind: data for kind, data in written.items() if data is not None}
    if not coded:
        return contents
    index = [coded[kind].numel() if kind in coded else 0 for kind in blob_order(counts)]
    return ArtifactContents({**contents.header, "numbers": index}, {**contents.blobs, **coded})


def with_plain_numbers(run: ModelRecord, contents: ArtifactContents) -> ArtifactContents:
    """The inverse, for a file from anywhere."""
    if "numbers" not in contents.header:
        return contents
    counts = number_counts(run, contents.header)
    coded = coded_sizes(contents.header, counts)
    if missing := set(coded) - set(contents.blobs):
        raise ArtifactError(f"the blob {min(missing)!r} is not there")
    plain = {kind: read_numbers(kind, contents.blobs[kind], counts[kind]) for kind in coded}
    header = {name: value for name, value in contents.header.items() if name != "numbers"}
    return ArtifactContents(header, {**contents.blobs, **plain})


def number_counts(run: ModelRecord, header: Mapping[str, object]) -> dict[str, list[int]]:
    """How many numbers each tensor of each blob but that of codes has, in order."""
    found = {"scales": [tensor.spec.count for tensor in placed_tensors(run) if tensor.spec.scale]}
    for kind, shapes in read_tensors(header).items():
        found[kind] = [math.prod(shape) for shape in shapes.values()]
    return found


def written_numbers(kind: str, blob: Tensor, counts: list[int]) -> Tensor | None:
    """The bytes (uint8) of a blob ``(N,)``; None where they would be no fewer.

    Args:
        kind: "scales", or the name of a dtype.
        counts: ``(T,)``, of its tensors.
    """
    if kind not in _CODED or not 0 < blob.numel() <= (_MOST_NUMBERS if has_kernel() else _BY_PYTHON):
        return None
    upper, lower = _halves(blob)
    whole = np.concatenate([[0] * len(counts), np.where(upper < 0, -(upper & 0x7FFF), upper)]).astype(np.int32)
    if ((upper & 0x7FFF == 0) & (upper < 0)).any():
        return None  # a zero below zero, which no whole number is
    at = len(counts)
    for number, count in enumerate(counts):
        part = upper[at - len(counts) :][:count].astype(np.int16)
        scaled = None if blob.dtype != torch.float16 else _multiples(part.view(np.float16))
        whole[number] = _PATTERN if scaled is None else scaled[0]
        if scaled is not None:
            whole[at : at + count] = scaled[1]
        at += count
    data = lower.tobytes() + LearnedCodes().write(whole.reshape(1, -1), _LAYOUT)
    if len(data) >= blob.numel() * blob.element_size() or _is_bomb(blob.numel() * blob.element_size(), len(data)):
        return None
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def read_numbers(kind: str, data: Tensor, counts: list[int]) -> Tensor:
    """The blob that :func:`written_numbers` was given.

    Raises:
        ArtifactError: for bytes that are not those of such numbers.
    """
    dtype, count = torch.float16 if kind == "scales" else DTYPES[kind], sum(counts)
    if kind not in _CODED or not 0 < count <= _MOST_NUMBERS or _is_bomb(count * dtype.itemsize, data.numel()):
        raise ArtifactError(f"{data.numel()} bytes cannot be {count} coded numbers of {kind!r}")
    behind = count * (dtype.itemsize - 2)
    given = data.numpy()
    whole = LearnedCodes().read(given[behind:].tobytes(), (1, len(counts) + count), _LAYOUT)[0]
    powers, numbers = whole[: len(counts)], whole[len(counts) :]
    upper = np.where(numbers < 0, -numbers | 0x8000, numbers).astype(np.uint16)
    at = 0
    for power, size in zip(powers.tolist(), counts, strict=True):
        if power != _PATTERN:
            upper[at : at + size] = _halves_of(numbers[at : at + size], power, dtype).view(np.uint16)
        at += size
    if not behind:
        return torch.from_numpy(upper.view(np.int16)).view(dtype)
    lower = np.frombuffer(given[:behind].tobytes(), np.uint16)
    return torch.from_numpy(np.stack([lower, upper], 1).reshape(-1).view(np.int32)).view(dtype)


def _halves(blob: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The upper 16 bits of each number as int32 below zero where its sign is, and the lower ones as they are."""
    if blob.element_size() == 2:
        return blob.contiguous().view(torch.int16).numpy().astype(np.int32), np.zeros(0, np.uint16)
    pairs = blob.contiguous().view(torch.int16).numpy().reshape(-1, 2)
    return pairs[:, 1].astype(np.int32), pairs[:, 0].astype(np.uint16)


def _multiples(values: np.ndarray) -> tuple[int, np.ndarray] | None:
    """``e`` and ``k`` of fp16 numbers; None where there are none that fit."""
    if not np.isfinite(values).all():
        return None
    units = np.round(values.astype(np.float64) * 2.0**24).astype(np.int64)  # of which all fp16 numbers are multiples
    together = int(np.bitwise_or.reduce(np.abs(units), initial=0))
    if not together:
        return 0, units
    power = min((together & -together).bit_length() - 1, _GREATEST - _LEAST)
    found = units >> power
    return (power + _LEAST, found) if int(np.abs(found).max()) <= _LAYOUT.half else None


def _halves_of(multiples: np.ndarray, power: int, dtype: torch.dtype) -> np.ndarray:
    exact = multiples.astype(np.float64) * 2.0 ** min(max(power, _LEAST), _GREATEST)
    if dtype != torch.float16 or not _LEAST <= power <= _GREATEST or np.abs(exact).max(initial=0) > 65504:
        raise ArtifactError(f"coded numbers are multiples of 2^{power}, which they cannot be")
    found = exact.astype(np.float16)
    if (found.astype(np.float64) != exact).any():
        raise ArtifactError("coded numbers are none that fp16 holds")
    return found


def _is_bomb(size: int, coded: int) -> bool:
    return size > max(_SMALL_BYTES, _MOST_EXPANDED * coded)
