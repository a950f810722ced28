"""One task's adapter on disk: a safetensors file of one tensor of bytes, checked before anything is built.

In it follow one another: numbers of fp16 (scales, vectors, the head's bias), codes, a deflated JSON header, its length
(4 bytes, little-endian), the format (1 byte) and the SHA-256 of all of that. ``docs/adapt.md`` has the layout.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from corank.adapters import CodedLowRank
from corank.adapters.factor_codes import factor_codec
from corank.codecs import Uniform
from corank.coded_weight import CodedWeight
from corank.errors import ArtifactError, ConfigError
from corank.files import write_whole
from corank.storage.artifact_file import ADAPTER_TENSOR, framed
from corank.storage.bits import pack, packed_bytes, unpack
from corank.storage.header import list_in, parse_object, shown, text_in, unsound
from corank.storage.packed_header import deflated, inflated
from corank.storage.relative_names import BesideLayers, chained, unchained
from corank.storage.task_adapter import HEAD_CODEC, TaskAdapter, TaskHead, adapted, adapter_of

__all__ = ["adapter_bytes", "is_adapter", "load_adapter", "read_adapter", "save_adapter"]

_FORMAT, _HASH_BYTES = 1, 32
_END_BYTES = 5 + _HASH_BYTES
_MOST = 1 << 31  # of any size in a header
_FIELDS = {"base", "steps", "layers", "sizes", "vectors", "head"}
_BASE = re.compile(r"[0-9a-f]{32}")


def save_adapter(model: nn.Module, path: str | Path) -> int:
    """Writes what a task added to its base, and nothing of the base; the file appears whole or not at all.

    Args:
        model: what :func:`corank.adapt` or :func:`corank.load_adapter` returned.
        path: of the ``.safetensors`` file.

    Returns:
        The file's size in bytes.

    Raises:
        ModelError: for any other network. OutputError: when the path cannot be written. ConfigError: for no path.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ConfigError(f"save_adapter(model, path): a path comes second, not {type(path).__name__}")
    data = adapter_bytes(adapter_of(model))
    write_whole(path, data)
    return len(data)


def load_adapter(base: nn.Module, path: str | Path) -> nn.Module:
    """A coded base with the adapter of a file: bit for bit the network that :func:`save_adapter` was given.

    The base is not changed, and its codes are shared: several tasks on one base hold their own adapters alone.

    Args:
        base: what :func:`corank.load`, :func:`corank.quantize` or :func:`corank.train` returned, without an adapter of
            another task.
        path: of the file.

    Raises:
        ArtifactError: for an unsound file, or one of another base. ModelError: for what is no coded network.
    """
    adapter = read_adapter(path)
    try:
        return adapted(base, adapter)
    except (ArtifactError, ConfigError) as error:
        raise ArtifactError(f"{path} does not fit this {type(base).__name__}: {error}") from error


def is_adapter(path: str | Path) -> bool:
    """Whether a file is one of a task's adapter, sound or not."""
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            return list(file.keys()) == [ADAPTER_TENSOR]
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError):
        return False


def read_adapter(path: str | Path) -> TaskAdapter:
    """Reads and checks the file of an adapter; no base is needed.

    Raises:
        ArtifactError: for a file that is missing, truncated, altered, of a future version or of another kind.
    """
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            if list(file.keys()) != [ADAPTER_TENSOR]:
                raise ArtifactError("no task's adapter, which corank.save_adapter writes; networks: corank.load")
            whole = file.get_tensor(ADAPTER_TENSOR)
        return _adapter_in(whole)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {str(error)[:1000]}") from error
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(f"{path} cannot be read as an adapter: {str(error)[:300]}") from error


def adapter_bytes(adapter: TaskAdapter) -> bytes:
    """The bytes of the file that :func:`save_adapter` writes."""
    head, names = adapter.head, list(adapter.layers)
    scales, codes = list[Tensor](), list[Tensor]()
    for one in adapter.layers.values():
        for side in (one.left, one.right):
            scales.append(side.codebook.tensors()["scale"])
            codes.append(pack(side.codes.cpu(), one.bits))
    halves = [*scales, *adapter.vectors.values()]
    if head is not None:
        halves += [head.weight.codebook.tensors()["scale"], *([] if head.bias is None else [head.bias])]
        codes.append(pack(head.weight.codes.cpu(), HEAD_CODEC.bits))
    beside = BesideLayers(names)
    header = {
        "base": adapter.base,
        "steps": adapter.iterations,
        "layers": chained(names),
        # ranks of all layers, then bits, groups, rows and columns: like numbers beside each other deflate well
        "sizes": [list(column) for column in zip(*map(_sizes, adapter.layers.values()), strict=True)],
        "vectors": [[beside.way(name)[0], len(one)] for name, one in adapter.vectors.items()],
        "head": None if head is None else [head.name, *head.weight.codes.shape, head.bias is not None],
    }
    block = deflated(json.dumps(header, separators=(",", ":")).encode())
    numbers = b"".join(_raw(one.detach().cpu().reshape(-1).to(torch.float16)) for one in halves)
    content = numbers + b"".join(map(_raw, codes)) + block + len(block).to_bytes(4, "little") + bytes([_FORMAT])
    return framed(ADAPTER_TENSOR, content + hashlib.sha256(content).digest())


def _raw(flat: Tensor) -> bytes:
    return flat.contiguous().view(torch.uint8).numpy().tobytes()


def _sizes(one: CodedLowRank) -> tuple[int, ...]:
    return (one.rank, one.bits, one.groups, one.left.codes.shape[1], one.right.codes.shape[1])


def _adapter_in(whole: Tensor) -> TaskAdapter:
    if whole.dtype != torch.uint8 or whole.dim() != 1 or len(whole) < _END_BYTES:
        raise ArtifactError(f"its tensor is {whole.dtype} {tuple(whole.shape)}, not {_END_BYTES} bytes or more")
    data = whole.numpy().tobytes()
    content, end = data[:-_HASH_BYTES], len(data) - _END_BYTES
    if content[-1] != _FORMAT:
        raise ArtifactError(f"an adapter of format {content[-1]}; this version reads format {_FORMAT}; upgrade corank")
    if hashlib.sha256(content).digest() != data[-_HASH_BYTES:]:
        raise ArtifactError("it was altered: its SHA-256 does not match; copy the file anew")
    begin = end - int.from_bytes(content[end : end + 4], "little")
    if begin < 0:
        raise ArtifactError("its header is longer than the file")
    text, rest = inflated(content[begin:end])
    if rest:
        raise unsound(f"{len(rest)} bytes stand behind it")
    header = _Header.of(parse_object(text))
    return header.filled(whole[:begin])


class _Header:
    """A header whose fields are of the kinds that they must be, and what they say of the bytes before it."""

    def __init__(self, base: str, steps: int, layers: Mapping[str, list[int]], vectors: Mapping[str, int]) -> None:
        self.base, self.steps, self.layers, self.vectors = base, steps, layers, vectors
        self.head: tuple[str, int, int, bool] | None = None

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> _Header:
        """Raises ArtifactError for what no header says."""
        if set(told) != _FIELDS:
            raise unsound(f"its fields are not {', '.join(sorted(_FIELDS))}")
        base = text_in(told["base"], "base")
        if not _BASE.fullmatch(base):
            raise unsound(f"base is {shown(base)}, no half of a SHA-256")
        names = unchained([text_in(way, "a layer") for way in list_in(told["layers"], "layers")])
        columns = [list_in(one, "sizes") for one in list_in(told["sizes"], "sizes")]
        if len(columns) != (5 if names else 0) or any(len(one) != len(names) for one in columns):
            raise unsound(f"sizes are not five for each of {len(names)} layers")
        sizes = {name: [_count(one) for one in own] for name, *own in zip(names, *columns, strict=True)}
        if any(not 2 <= one[1] <= 8 for one in sizes.values()):
            raise unsound("factors have 2 to 8 bits")
        beside, vectors = BesideLayers(names), list_in(told["vectors"], "vectors")
        if not all(isinstance(one, list) and len(one) == 2 for one in vectors):
            raise unsound("vectors are not names and lengths")
        lengths = {beside.name(text_in(way, "a vector"))[0]: _count(count) for way, count in vectors}
        if len(sizes) != len(names) or len(lengths) != len(vectors):
            raise unsound("it names one twice")
        found = cls(base, _count(told["steps"], least=0), sizes, lengths)
        if told["head"] is not None:
            head = list_in(told["head"], "head")
            if len(head) != 4 or type(head[3]) is not bool:
                raise unsound("head is not a name, two sizes and whether there is a bias")
            found.head = (text_in(head[0], "head"), _count(head[1]), _count(head[2]), head[3])
        return found

    def _counts(self) -> tuple[list[int], list[tuple[int, int]]]:
        """Numbers of each run of fp16; codes and bits of each run of codes."""
        halves, codes = list[int](), list[tuple[int, int]]()
        for rank, bits, groups, rows, columns in self.layers.values():
            halves += [groups * rank] * 2
            codes += [(groups * rank * rows, bits), (groups * rank * columns, bits)]
        halves += self.vectors.values()
        if self.head is not None:
            _, rows, columns, biased = self.head
            halves += [rows] * (2 if biased else 1)
            codes.append((rows * columns, HEAD_CODEC.bits))
        return halves, codes

    def filled(self, data: Tensor) -> TaskAdapter:
        """Raises ArtifactError for bytes that are not exactly as many as it needs, before anything is made of them."""
        halves, codes = self._counts()
        sizes = [*(2 * count for count in halves), *(packed_bytes(*one) for one in codes)]
        if sum(sizes) != len(data):
            raise ArtifactError(f"its header needs {sum(sizes)} bytes of numbers, and there are {len(data)}")
        parts = [data[begin:end] for begin, end in pairwise(accumulate(sizes, initial=0))]
        numbers = iter([part.clone().view(torch.float16).float() for part in parts[: len(halves)]])
        unpacked = zip(parts[len(halves) :], codes, strict=True)
        symbols = iter([unpack(part, bits, count) for part, (count, bits) in unpacked])
        layers = {name: _layer(own, numbers, symbols) for name, own in self.layers.items()}
        vectors = {name: _finite(next(numbers), name) for name in self.vectors}
        head = None
        if self.head is not None:
            name, rows, columns, biased = self.head
            weight = _side(HEAD_CODEC, (rows, columns), numbers, symbols)
            head = TaskHead(name, weight, _finite(next(numbers), "the head's bias") if biased else None)
        return TaskAdapter(self.base, layers, vectors, head, self.steps)


def _layer(sizes: list[int], numbers: Iterator[Tensor], symbols: Iterator[Tensor]) -> CodedLowRank:
    rank, bits, groups, *widths = sizes
    left, right = (_side(factor_codec(bits), (groups * rank, width), numbers, symbols) for width in widths)
    return CodedLowRank(left, right, groups)


def _side(codec: Uniform, shape: tuple[int, int], numbers: Iterator[Tensor], symbols: Iterator[Tensor]) -> CodedWeight:
    scale = _finite(next(numbers), "a scale")
    if not bool((scale > 0).all()):
        raise ArtifactError("a scale is not above zero")
    return CodedWeight(next(symbols).reshape(shape), codec.codebook({"scale": scale}, *shape))


def _finite(numbers: Tensor, what: str) -> Tensor:
    if not bool(numbers.isfinite().all()):
        raise ArtifactError(f"{what[:80]!r} holds what is not finite")
    return numbers


def _count(value: Any, least: int = 1) -> int:
    if type(value) is not int or not least <= value < _MOST:
        raise unsound(f"a size is {shown(value)}, not a whole number from {least}")
    return value
