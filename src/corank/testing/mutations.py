"""Damaged and forged artifacts, made from sound ones: what a reader must refuse, or read as a sound model.

Bytes are changed blindly, and the file's parts on purpose; most forgeries carry a right SHA-256, so that the checks
behind it are reached. The same generator state gives the same file.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from corank.errors import ArtifactError
from corank.storage.header import blob_sizes, read_run
from corank.testing.forged_headers import forge_header, forge_text, hostile

__all__ = ["DAMAGES", "Parts", "bomb", "mutate"]

_TORCH_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "U16": "uint16", "U32": "uint32", "U64": "uint64",
    "C64": "complex64", "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip
_DTYPES = [*_TORCH_NAMES, "F4", "F6_E2M3", "F128", "", "u8", "OBJ"]


@dataclass
class Parts:
    """An artifact taken apart; :meth:`join` is its inverse, but for the order of what the frame lists.

    Attributes:
        frame: of safetensors: the place, dtype and shape of each blob.
        header: corank's own, as text.
        body: all blobs.
        sign: whether :meth:`join` computes the SHA-256 anew; else the one that was there is kept.
        sha256: the one that was there.
    """

    frame: dict[str, Any]
    header: str
    body: bytes
    sha256: str
    sign: bool = True

    @classmethod
    def of(cls, data: bytes) -> Parts:
        """The parts of a sound artifact."""
        end = 8 + int.from_bytes(data[:8], "little")
        frame = json.loads(data[8:end])
        metadata = frame.pop("__metadata__")
        return cls(frame, metadata["corank"], data[end:], metadata["sha256"])

    def blob(self, name: str) -> bytes:
        """The bytes of one blob."""
        begin, end = self.frame[name]["data_offsets"]
        return self.body[begin:end]

    def replace(self, name: str, data: bytes, width: int) -> None:
        """Another blob in the place of one of items of ``width`` bytes; the others move."""
        blobs = {key: self.blob(key) for key in sorted(self.frame, key=lambda key: self.frame[key]["data_offsets"])}
        blobs[name], at, body = data, 0, []
        for key, value in blobs.items():
            self.frame[key]["data_offsets"] = [at, at + len(value)]
            body.append(value)
            at += len(value)
        self.frame[name]["shape"] = [len(data) // width]
        self.body = b"".join(body)

    def digest(self) -> str:
        """The SHA-256 as ``docs/artifact.md`` has it; of what is malformed, anything."""
        total = hashlib.sha256(self.header.encode("utf-8", "replace"))
        for name in sorted(self.frame):
            try:
                entry = self.frame[name]
                kind, count = _TORCH_NAMES.get(entry["dtype"], "none"), math.prod(entry["shape"])
                total.update(f"\0{name}:torch.{kind}:{count}\0".encode())
                total.update(self.blob(name))
            except (TypeError, KeyError, ValueError, AttributeError):
                continue
        return total.hexdigest()

    def join(self) -> bytes:
        """The file."""
        metadata = {"corank": self.header, "sha256": self.digest() if self.sign else self.sha256, "format": "pt"}
        return framed({"__metadata__": metadata, **self.frame}, self.body)


def framed(frame: Any, body: bytes) -> bytes:
    """A safetensors file of that frame, which may be anything."""
    text = json.dumps(frame, ensure_ascii=False).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def mutate(data: bytes, draw: random.Random, others: Sequence[bytes] = ()) -> tuple[str, bytes]:
    """The name of a mutation and the mutated file.

    Args:
        data: a sound artifact.
        draw: decides everything.
        others: sound artifacts whose parts may be put in.
    """
    choices = [*[_damage, _damage, _frame, _blobs, _header, _header, _header, _text] * 2, _bomb]
    return draw.choice(choices)(data, draw, others or (data,))


def _damage(data: bytes, draw: random.Random, others: Sequence[bytes]) -> tuple[str, bytes]:
    """Bytes, blindly."""
    name = draw.choice(tuple(DAMAGES))
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        data = DAMAGES[name](data, draw, others)
    return f"bytes: {name}", data


def _flip(data: bytes, draw: random.Random, others: Sequence[bytes]) -> bytes:
    place = draw.randrange(max(1, len(data)))
    return data[:place] + bytes(byte ^ (1 << draw.randrange(8)) for byte in data[place : place + 1]) + data[place + 1 :]


def _overwrite(data: bytes, draw: random.Random, others: Sequence[bytes]) -> bytes:
    place, size = draw.randrange(len(data) + 1), draw.choice((1, 4, 8, 64))
    return data[:place] + draw.choice((draw.randbytes(size), b"\0" * size, b"\xff" * size)) + data[place + size :]


def _truncate(data: bytes, draw: random.Random, others: Sequence[bytes]) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def _insert(data: bytes, draw: random.Random, others: Sequence[bytes]) -> bytes:
    place = draw.randrange(len(data) + 1)
    return data[:place] + draw.randbytes(draw.choice((1, 2, 8, 100))) + data[place:]


def _delete(data: bytes, draw: random.Random, others: Sequence[bytes]) -> bytes:
    place = draw.randrange(len(data) + 1)
    return data[:place] + data[place + draw.choice((1, 2, 8, 100)) :]


def _repeat(data: bytes, draw: random.Random, others: Sequence[bytes]) -> bytes:
    begin, end = sorted((draw.randrange(len(data) + 1), draw.randrange(len(data) + 1)))
    return data[:end] + data[begin:end] + data[end:]


def _splice(data: bytes, draw: random.Random, others: Sequence[bytes]) -> bytes:
    other = draw.choice(others)
    return data[: draw.randrange(len(data) + 1)] + other[draw.randrange(len(other) + 1) :]


def _length(data: bytes, draw: random.Random, others: Sequence[bytes]) -> bytes:
    """The length of the frame, which stands first."""
    right = int.from_bytes(data[:8], "little")
    chosen = draw.choice((0, 1, right - 1, right + 1, len(data), 1 << 31, 1 << 32, (1 << 63) - 1, (1 << 64) - 1))
    return (chosen % (1 << 64)).to_bytes(8, "little") + data[8:]


DAMAGES: dict[str, Callable[[bytes, random.Random, Sequence[bytes]], bytes]] = {
    "flip": _flip, "overwrite": _overwrite, "truncate": _truncate, "insert": _insert, "delete": _delete,
    "repeat": _repeat, "splice": _splice, "length": _length,
}  # fmt: skip


def _frame(data: bytes, draw: random.Random, others: Sequence[bytes]) -> tuple[str, bytes]:
    """What safetensors itself lists: dtypes, shapes, places, names."""
    parts = Parts.of(data)
    name = draw.choice(tuple(parts.frame))
    entry = parts.frame[name]
    kind = draw.choice(("dtype", "shape", "offsets", "name", "drop", "add", "entry", "metadata"))
    if kind == "dtype":
        entry["dtype"] = draw.choice(_DTYPES)
        if draw.random() < 0.7:
            _fit_shape(entry, draw)
    elif kind == "shape":
        entry["shape"] = draw.choice((_split(entry["shape"], draw), [], [0], [-1], [1 << 62, 4], hostile(draw)))
    elif kind == "offsets":
        entry["data_offsets"] = draw.choice(([0, 0], [0, len(parts.body) + 1], [8, 0], [-8, 8], hostile(draw)))
    elif kind == "name":
        parts.frame[draw.choice(("codes", "scales", "float16", "../codes", "", "é", "x" * 5000))] = parts.frame.pop(
            name
        )
    elif kind == "drop":
        del parts.frame[name]
    elif kind == "add":
        size, end = draw.choice((0, 1, 8)), len(parts.body)
        parts.body += bytes(size)
        parts.frame[draw.choice(("more", "int64", "float32", "../x"))] = {
            "dtype": "U8", "shape": [size], "data_offsets": [end, end + size],
        }  # fmt: skip
    elif kind == "entry":
        parts.frame[name] = hostile(draw)
    else:
        return "frame: metadata", _other_metadata(parts, draw)
    return f"frame: {kind}", parts.join()


def _fit_shape(entry: dict[str, Any], draw: random.Random) -> None:
    """A shape that agrees with the new dtype, or has no dimension."""
    widths = {
        "F64": 8,
        "I64": 8,
        "U64": 8,
        "C64": 8,
        "F32": 4,
        "I32": 4,
        "U32": 4,
        "F16": 2,
        "BF16": 2,
        "I16": 2,
        "U16": 2,
    }
    size = entry["data_offsets"][1] - entry["data_offsets"][0]
    width = widths.get(entry["dtype"], 1)
    entry["shape"] = [size // width]
    if draw.random() < 0.3 and size == width:
        entry["shape"] = []


def _split(shape: list[int], draw: random.Random) -> list[int]:
    """The same number of items in more dimensions."""
    count = math.prod(shape)
    part = next((number for number in (2, 3, 5, 7) if count % number == 0), 1)
    return draw.choice(([part, count // part], [1, count], [count, 1, 1]))


def _other_metadata(parts: Parts, draw: random.Random) -> bytes:
    metadata: Any = {"corank": parts.header, "sha256": parts.digest(), "format": "pt"}
    key = draw.choice(("corank", "sha256", "format", None))
    if key is None:
        metadata = hostile(draw)
    elif draw.random() < 0.5:
        del metadata[key]
    else:
        metadata[key] = hostile(draw)
    return framed({"__metadata__": metadata, **parts.frame}, parts.body)


def _blobs(data: bytes, draw: random.Random, others: Sequence[bytes]) -> tuple[str, bytes]:
    """The numbers, under a right SHA-256."""
    parts = Parts.of(data)
    name = draw.choice(tuple(parts.frame))
    blob, width = parts.blob(name), {"F16": 2, "F32": 4, "I64": 8, "F64": 8}.get(parts.frame[name]["dtype"], 1)
    kind = draw.choice(("noise", "flip", "extreme", "longer", "shorter", "other"))
    if kind == "noise":
        blob = draw.randbytes(len(blob))
    elif kind == "flip":
        blob = _flip(blob, draw, others)
    elif kind == "extreme":
        item = draw.choice((b"\xff", b"\0", b"\0\x7c", b"\0\xfc", b"\0\x7e", b"\0\x80", b"\1\0", b"\xff\x7b"))
        place = draw.randrange(len(blob) + 1) // width * width
        blob = (blob[:place] + item * width + blob[place + len(item) * width :])[: len(blob)]
    elif kind == "longer":
        blob += bytes(width * draw.choice((1, 3, 1000)))
    elif kind == "shorter":
        blob = blob[: -width * draw.choice((1, 2, 8))]
    else:
        other = Parts.of(draw.choice(others))
        blob = other.blob(name) if name in other.frame else b""
    parts.replace(name, blob, width)
    return f"blobs: {kind}", parts.join()


def _header(data: bytes, draw: random.Random, others: Sequence[bytes]) -> tuple[str, bytes]:
    """Corank's own header, as JSON."""
    parts = Parts.of(data)
    kind, header = forge_header(
        json.loads(parts.header), draw, lambda: json.loads(Parts.of(draw.choice(others)).header)
    )
    parts.header = json.dumps(header, separators=(",", ":"))
    if draw.random() < 0.5:
        _refit(parts, header, draw)
    return f"header: {kind}", parts.join()


def _bomb(data: bytes, draw: random.Random, others: Sequence[bytes]) -> tuple[str, bytes]:
    rows, columns = 1 << draw.randrange(4, 15), 1 << draw.randrange(4, 12)
    return "bomb", bomb(data, rows, columns, draw.choice((1, 2, 4, 8)))


def bomb(data: bytes, rows: int, columns: int, bits: int) -> bytes:
    """An artifact in order, but that a few of its bytes inflate to one layer of that size."""
    parts = Parts.of(data)
    header = json.loads(parts.header)
    name = min(header["layers"])
    squeezer, line = zlib.compressobj(9, zlib.DEFLATED, -15), bytes(columns * bits // 8 - 1)
    # One byte of each row is not as the others: coded a little less than a thousandfold, which alone is refused.
    codes = b"".join(squeezer.compress(line + bytes([row & 0x7F])) for row in range(rows)) + squeezer.flush()
    plan = {"codec": {"kind": "uniform", "bits": bits, "symmetric": True, "group": -1}}
    index = {"coders": ["deflate"], "coded": [[0, len(codes)]], "layers": {name: [1, rows, columns, 0.0]}}
    parts.header = json.dumps({**header, **index, "format": 2, "plan": {"layers": {name: plan}}})
    parts.replace("codes", codes, 1)
    parts.replace("scales", b"\0\x3c", 2)
    return parts.join()


def _text(data: bytes, draw: random.Random, others: Sequence[bytes]) -> tuple[str, bytes]:
    """Corank's own header, as text that may be no JSON."""
    parts = Parts.of(data)
    kind, parts.header = forge_text(parts.header, draw)
    parts.sign = draw.random() < 0.95
    return f"text: {kind}", parts.join()


def _refit(parts: Parts, header: Any, draw: random.Random) -> None:
    """Codes and scales of the sizes that the header asks for, where it is one and they are small."""
    try:
        packed, scales = blob_sizes(read_run(header))
    except ArtifactError:
        return
    if max(packed, 2 * scales) > 1 << 16 or not {"codes", "scales"} <= set(parts.frame):
        return
    blob = parts.blob("codes")
    parts.replace("codes", (blob + draw.randbytes(packed))[:packed], 1)
    blob = parts.blob("scales")
    more = b"".join(draw.choice((b"\0\x3c", b"\0\x38", b"\0\x30")) for _ in range(max(0, scales - len(blob) // 2)))
    parts.replace("scales", (blob + more)[: 2 * scales], 2)
