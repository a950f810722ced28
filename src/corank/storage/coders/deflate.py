"""Deflate (RFC 1951), by the standard library."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from corank.errors import ArtifactError
from corank.storage.coders.base import SymbolCoder
from corank.storage.coders.joined import join, most_joined, split

__all__ = ["Deflate"]

_RAW = -15  # no frame of zlib's around the stream


@dataclass(frozen=True)
class Deflate(SymbolCoder):
    """Symbols joined to bytes as :class:`Huffman` may, then deflated: Huffman codes anew for each part of a tensor.

    Written with Huffman codes alone and with repetitions as well; the smaller is kept. Above 256 levels a symbol is
    two bytes, all low bytes first. The bytes are a bare deflate stream, which any language reads.
    """

    def _encode(self, values: np.ndarray, levels: int) -> bytes:
        raw = _bytes_of(values.reshape(-1), levels)
        # Codes of weights rarely repeat: what repetitions add to the alphabet can cost more than they save.
        return min((_deflated(raw, how) for how in (zlib.Z_HUFFMAN_ONLY, zlib.Z_DEFAULT_STRATEGY)), key=len)

    def _decode(self, data: bytes, shape: tuple[int, int], levels: int) -> np.ndarray:
        count, joined = shape[0] * shape[1], most_joined(levels)
        size = 2 * count if levels > 256 else -(-count // joined)
        raw = np.frombuffer(_inflated(data, size), np.uint8)
        if levels > 256:
            return raw[:count].astype(np.int64) | raw[count:].astype(np.int64) << 8
        return split(raw, levels, joined, count)


def _bytes_of(values: np.ndarray, levels: int) -> bytes:
    if levels > 256:
        # High bytes are much alike and low ones are not: apart, each part gets Huffman codes of its own.
        return (values & 0xFF).astype(np.uint8).tobytes() + (values >> 8).astype(np.uint8).tobytes()
    return join(values, levels, most_joined(levels)).astype(np.uint8).tobytes()


def _deflated(raw: bytes, strategy: int) -> bytes:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, _RAW, 9, strategy)
    return squeezer.compress(raw) + squeezer.flush()


def _inflated(data: bytes, size: int) -> bytes:
    """The ``size`` bytes that the stream holds; no more than one further byte is ever made."""
    stream = zlib.decompressobj(_RAW)
    try:
        raw = stream.decompress(data, size + 1)
    except zlib.error as error:
        raise ArtifactError(f"a deflate stream is not sound: {error}") from error
    if len(raw) != size or not stream.eof or stream.unused_data:
        raise ArtifactError(f"a deflate stream does not end with the {size} bytes that it should hold")
    return raw
