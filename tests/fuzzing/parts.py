"""Artifacts taken apart and put together again, in any of their formats, with whatever parts."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from dataclasses import dataclass
from typing import Any

from safetensors.torch import load as load_tensors

from corank.storage.artifact_file import FORMAT, FORMAT_OF_CODED_NUMBERS, TENSOR, header_in, numbers_in
from corank.storage.header import read_run
from corank.storage.header_dictionary import DICTIONARY
from corank.storage.packed_header import pack_header

__all__ = [
    "DTYPES",
    "CurrentParts",
    "OlderParts",
    "Parts",
    "deflated",
    "framed",
    "inflated",
    "older_digest",
    "opened",
    "parts_of",
    "signed",
]

_TORCH_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "U16": "uint16", "U32": "uint32", "U64": "uint64",
    "C64": "complex64", "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip
DTYPES = (*_TORCH_NAMES, "F4", "F6_E2M3", "F128", "", "u8", "OBJ")
_END_BYTES = 37


@dataclass
class OlderParts:
    """A file of format 1 or 2; :meth:`join` is its inverse, but for the order of what the frame lists.

    Attributes:
        frame: of safetensors: the place, dtype and shape of each blob.
        header: corank's own, as text.
        body: all blobs.
        sha256: the one that was there.
        sign: whether :meth:`join` computes the SHA-256 anew; else the one that was there is kept.
    """

    frame: dict[str, Any]
    header: str
    body: bytes
    sha256: str
    sign: bool = True

    @classmethod
    def of(cls, data: bytes) -> OlderParts:
        """The parts of a sound artifact."""
        frame, body = opened(data)
        metadata = frame.pop("__metadata__")
        return cls(frame, metadata["corank"], body, metadata["sha256"])

    def names(self) -> list[str]:
        """The names of its blobs."""
        return list(self.frame)

    def blob(self, name: str) -> bytes:
        """The bytes of one blob; none where there is no such blob."""
        begin, end = self.frame[name]["data_offsets"] if name in self.frame else (0, 0)
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
        return older_digest(self.frame, self.header, self.body)

    def set_header(self, header: dict[str, Any]) -> None:
        """Another header, in the form that :func:`corank.storage.header.read_run` reads."""
        self.header = json.dumps(header, separators=(",", ":"))

    def long_header(self) -> dict[str, Any]:
        """The header in that form."""
        return json.loads(self.header)

    def join(self) -> bytes:
        """The file."""
        metadata = {"corank": self.header, "sha256": self.digest() if self.sign else self.sha256, "format": "pt"}
        return framed({"__metadata__": metadata, **self.frame}, self.body)


@dataclass
class CurrentParts:
    """A file of this version's format; :meth:`join` is its inverse.

    Attributes:
        header: as the text that is deflated.
        columns: the numbers behind it.
        blobs: by name, in the order of the file.
        long: the header in the form that :func:`corank.storage.header.read_run` reads.
        sha256: the one that was there.
        sign: whether :meth:`join` computes the SHA-256 anew; else the one that was there is kept.
    """

    header: str
    columns: bytes
    blobs: dict[str, bytes]
    long: dict[str, Any]
    sha256: bytes
    sign: bool = True

    @classmethod
    def of(cls, data: bytes) -> CurrentParts:
        """The parts of a sound artifact."""
        header, numbers = header_in(load_tensors(data)[TENSOR])
        blobs = numbers_in(numbers, header, read_run(header))
        end = len(data) - _END_BYTES
        block = data[end - int.from_bytes(data[end : end + 4], "little") : end]
        text, columns = inflated(block)
        raw = {name: blob.numpy().tobytes() for name, blob in blobs.items()}
        return cls(text, columns, raw, header, data[-32:])

    def names(self) -> list[str]:
        """The names of its blobs."""
        return list(self.blobs)

    def blob(self, name: str) -> bytes:
        """The bytes of one blob; none where there is no such blob."""
        return self.blobs.get(name, b"")

    def replace(self, name: str, data: bytes, width: int) -> None:
        """Another blob in the place of one."""
        self.blobs[name] = data

    def set_header(self, header: dict[str, Any]) -> None:
        """Another header, in the form that :func:`corank.storage.header.read_run` reads."""
        self.long = header
        self.header, self.columns = inflated(pack_header(header))

    def long_header(self) -> dict[str, Any]:
        """The header in that form."""
        return self.long

    def join(self) -> bytes:
        """The file."""
        block = deflated(self.header.encode("utf-8", "surrogatepass")) + self.columns
        given = FORMAT_OF_CODED_NUMBERS if '"numbers":' in self.header else FORMAT
        body = b"".join(self.blobs.values()) + block + len(block).to_bytes(4, "little") + bytes([given])
        return signed(body) if self.sign else signed(body, self.sha256)


Parts = CurrentParts | OlderParts


def parts_of(data: bytes) -> Parts:
    """The parts of a sound artifact of any format."""
    return OlderParts.of(data) if "__metadata__" in opened(data)[0] else CurrentParts.of(data)


def opened(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The frame of a safetensors file, and what stands behind it."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def older_digest(frame: dict[str, Any], header: str, body: bytes) -> str:
    """The SHA-256 of a file of format 1 or 2; of what is malformed, anything."""
    total = hashlib.sha256(header.encode("utf-8", "replace"))
    for name in sorted(frame):
        try:
            entry = frame[name]
            kind, count = _TORCH_NAMES.get(entry["dtype"], "none"), math.prod(entry["shape"])
            begin, end = entry["data_offsets"]
            total.update(f"\0{name}:torch.{kind}:{count}\0".encode())
            total.update(body[begin:end])
        except (TypeError, KeyError, ValueError, AttributeError):
            continue
    return total.hexdigest()


def framed(frame: Any, body: bytes) -> bytes:
    """A safetensors file of that frame, which may be anything."""
    text = json.dumps(frame, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def signed(body: bytes, sha256: bytes | None = None) -> bytes:
    """A file of this version's format, of the bytes of its tensor up to the hash."""
    body += hashlib.sha256(body).digest() if sha256 is None else sha256
    return framed({TENSOR: {"dtype": "U8", "shape": [len(body)], "data_offsets": [0, len(body)]}}, body)


def deflated(text: bytes) -> bytes:
    """A header's text as it stands in a file."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
    return squeezer.compress(text) + squeezer.flush()


def inflated(block: bytes) -> tuple[str, bytes]:
    """The text of a header, and the columns behind it."""
    stream = zlib.decompressobj(-15, DICTIONARY)
    return stream.decompress(block).decode(), stream.unused_data
