"""Damaged and forged artifacts, made from sound ones: what a reader must refuse, or read as a sound model.

Bytes are changed blindly, and the file's parts on purpose; most forgeries carry a right SHA-256, so that the checks
behind it are reached. The same generator state gives the same file.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from corank.errors import ArtifactError
from corank.storage.header import read_run
from corank.storage.number_columns import column
from corank.storage.placement import blob_sizes
from fuzzing.forged_headers import forge_header, forge_text, hostile
from fuzzing.parts import DTYPES, CurrentParts, Parts, framed, older_digest, opened, parts_of

__all__ = ["DAMAGES", "HEADER_BOMBS", "bomb", "header_bomb", "mutate"]


def mutate(data: bytes, draw: random.Random, others: Sequence[bytes] = ()) -> tuple[str, bytes]:
    """The name of a mutation and the mutated file.

    Args:
        data: a sound artifact.
        draw: decides everything.
        others: sound artifacts whose parts may be put in.
    """
    choices = [*[_damage, _damage, _frame, _blobs, _header, _header, _short_header, _columns, _text] * 2, _bomb]
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
    frame, body = opened(data)
    metadata = frame.pop("__metadata__", {})
    kind = draw.choice(("dtype", "shape", "offsets", "name", "drop", "add", "entry", "metadata"))
    if kind == "add":
        size, end = draw.choice((0, 1, 8)), len(body)
        body += bytes(size)
        frame[draw.choice(("more", "int64", "float32", "corank", "../x"))] = {
            "dtype": "U8", "shape": [size], "data_offsets": [end, end + size],
        }  # fmt: skip
    else:
        _other_entry(frame, kind, len(body), draw)
    if "sha256" in metadata:
        metadata["sha256"] = older_digest(frame, metadata["corank"], body)
    if kind == "metadata":
        metadata = _other_metadata(metadata, draw)
    return f"frame: {kind}", framed({"__metadata__": metadata, **frame} if metadata else frame, body)


def _other_entry(frame: dict[str, Any], kind: str, size: int, draw: random.Random) -> None:
    """One tensor's entry is changed in one respect; a frame without any stays as it is."""
    name = draw.choice(tuple(frame))
    entry = frame[name]
    if kind == "dtype":
        entry["dtype"] = draw.choice(DTYPES)
        if draw.random() < 0.7:
            _fit_shape(entry, draw)
    elif kind == "shape":
        entry["shape"] = draw.choice((_split(entry["shape"], draw), [], [0], [-1], [1 << 62, 4], hostile(draw)))
    elif kind == "offsets":
        entry["data_offsets"] = draw.choice(([0, 0], [0, size + 1], [8, 0], [-8, 8], hostile(draw)))
    elif kind == "name":
        frame[draw.choice(("codes", "corank", "scales", "float16", "../codes", "", "é", "x" * 5000))] = frame.pop(name)
    elif kind == "drop":
        del frame[name]
    elif kind == "entry":
        frame[name] = hostile(draw)


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


def _other_metadata(metadata: dict[str, Any], draw: random.Random) -> Any:
    key = draw.choice(("corank", "sha256", "format", None))
    if key is None:
        return hostile(draw)
    if draw.random() < 0.5:
        return {name: value for name, value in metadata.items() if name != key}
    return {**metadata, key: hostile(draw)}


def _blobs(data: bytes, draw: random.Random, others: Sequence[bytes]) -> tuple[str, bytes]:
    """The numbers, under a right SHA-256."""
    parts = parts_of(data)
    name = draw.choice(parts.names())
    blob, width = parts.blob(name), _WIDTHS.get(name, 1)
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
        blob = parts_of(draw.choice(others)).blob(name)
    parts.replace(name, blob, width)
    return f"blobs: {kind}", parts.join()


_WIDTHS = {"scales": 2, "float16": 2, "float32": 4, "int64": 8, "float64": 8}


def _header(data: bytes, draw: random.Random, others: Sequence[bytes]) -> tuple[str, bytes]:
    """Corank's own header, in the form that is checked."""
    parts = parts_of(data)
    kind, header = forge_header(parts.long_header(), draw, lambda: parts_of(draw.choice(others)).long_header())
    # What the packed form cannot hold leaves the header as it was; the form itself is forged beside this.
    with contextlib.suppress(
        LookupError, TypeError, AttributeError, ValueError, OverflowError, MemoryError, ArtifactError
    ):
        parts.set_header(header)
    if draw.random() < 0.5:
        _refit(parts, header, draw)
    return f"header: {kind}", parts.join()


def _short_header(data: bytes, draw: random.Random, others: Sequence[bytes]) -> tuple[str, bytes]:
    """The header of this version's format, in the form that stands in the file: ways, shapes, templates of plans."""
    parts = parts_of(data)
    if not isinstance(parts, CurrentParts):
        return _header(data, draw, others)
    another = _current(others, data)
    kind, header = forge_header(
        json.loads(parts.header), draw, lambda: json.loads(CurrentParts.of(draw.choice(another)).header), short=True
    )
    parts.header = json.dumps(header, separators=(",", ":"))
    return f"short header: {kind}", parts.join()


def _current(others: Sequence[bytes], data: bytes) -> list[bytes]:
    """The files of this version's format among others; if there is none, ``data``."""
    return [one for one in others if b"__metadata__" not in one[:40]] or [data]


def _columns(data: bytes, draw: random.Random, others: Sequence[bytes]) -> tuple[str, bytes]:
    """The numbers behind the header's text, and its length."""
    parts = parts_of(data)
    if not isinstance(parts, CurrentParts):
        return _blobs(data, draw, others)
    name = draw.choice(tuple(DAMAGES))
    kind = draw.choice((name, name, name, "another", "none", "huge", "wide"))
    if kind == "another":
        parts.columns = CurrentParts.of(draw.choice(_current(others, data))).columns
    elif kind == "none":
        parts.columns = b""
    elif kind == "huge":
        parts.columns = column([draw.choice((-1, 1)) * draw.getrandbits(draw.choice((8, 31, 61))) for _ in range(9)])
    elif kind == "wide":
        parts.columns = draw.choice((b"\xff" * 40, b"\0\xff" * 20, b"\0\x3f" * 20, b"\0\x3e" * 20, b"\0\0" * 5))
    else:
        parts.columns = DAMAGES[name](parts.columns, draw, [parts.columns])
    return f"columns: {kind}", parts.join()


def _bomb(data: bytes, draw: random.Random, others: Sequence[bytes]) -> tuple[str, bytes]:
    if draw.random() < 0.3 and "__metadata__" not in opened(data)[0]:
        return "bomb: header", header_bomb(data, draw.choice(HEADER_BOMBS), 1 << draw.randrange(8, 24))
    rows, columns = 1 << draw.randrange(4, 15), 1 << draw.randrange(4, 12)
    return "bomb: codes", bomb(data, rows, columns, draw.choice((1, 2, 4, 8)))


def bomb(data: bytes, rows: int, columns: int, bits: int) -> bytes:
    """An artifact in order, but that a few of its bytes inflate to one layer of that size."""
    parts = parts_of(data)
    header = parts.long_header()
    name = min(header["layers"])
    squeezer, line = zlib.compressobj(9, zlib.DEFLATED, -15), bytes(columns * bits // 8 - 1)
    # One byte of each row is not as the others: coded a little less than a thousandfold, which alone is refused.
    codes = b"".join(squeezer.compress(line + bytes([row & 0x7F])) for row in range(rows)) + squeezer.flush()
    plan = {"codec": {"kind": "uniform", "bits": bits, "symmetric": True, "group": -1}}
    index = {"coders": ["deflate"], "coded": [[0, len(codes)]], "layers": {name: [1, rows, columns, 0.0]}}
    older = {} if isinstance(parts, CurrentParts) else {"format": 2}
    parts.set_header({**header, **index, **older, "plan": {"default": {}, "layers": {name: plan}}})
    parts.replace("codes", codes, 1)
    parts.replace("scales", b"\0\x3c", 2)
    return parts.join()


HEADER_BOMBS = ("spaces", "lists", "objects", "depth", "names", "ways", "skips", "plans", "shapes", "digits")


def header_bomb(data: bytes, kind: str, size: int) -> bytes:
    """An artifact whose header inflates to about so many bytes of text, or that names more with so many.

    Args:
        data: a sound artifact of this version's format.
        kind: what it repeats.
        size: of the text.
    """
    parts = CurrentParts.of(data)
    repeated = {"spaces": " ", "lists": "[],", "objects": '{"":0},', "depth": "[", "digits": "9"}
    if kind in repeated:
        unit = repeated[kind]
        more = unit * (size // len(unit))
        parts.header = f'{parts.header[:-1]},"more":{f"[{more}0]" if unit[-1] == "," else more}}}'
        return parts.join()
    changes: dict[str, Callable[[], dict[str, Any]]] = {
        "names": lambda: {"layers": ["/a", *["b"] * (size // 4)]},
        "ways": lambda: {"folded": [""] * (size // 3)},
        "skips": lambda: {"folded": [">" * size]},
        "plans": lambda: {"plan": {"default": {}, "layers": [{}] * (size // 3)}},
        "shapes": lambda: {"shapes": [1] * (size // 2)},
    }
    parts.header = json.dumps({**json.loads(parts.header), **changes[kind]()}, separators=(",", ":"))
    return parts.join()


def _text(data: bytes, draw: random.Random, others: Sequence[bytes]) -> tuple[str, bytes]:
    """Corank's own header, as text that may be no JSON."""
    parts = parts_of(data)
    kind, parts.header = forge_text(parts.header, draw)
    parts.sign = draw.random() < 0.95
    return f"text: {kind}", parts.join()


def _refit(parts: Parts, header: Any, draw: random.Random) -> None:
    """Codes and scales of the sizes that the header asks for, where it is one and they are small."""
    try:
        packed, scales = blob_sizes(read_run(header))
    except (ArtifactError, LookupError, TypeError, AttributeError):
        return
    if max(packed, 2 * scales) > 1 << 16 or not {"codes", "scales"} <= set(parts.names()):
        return
    blob = parts.blob("codes")
    parts.replace("codes", (blob + draw.randbytes(packed))[:packed], 1)
    blob = parts.blob("scales")
    more = b"".join(draw.choice((b"\0\x3c", b"\0\x38", b"\0\x30")) for _ in range(max(0, scales - len(blob) // 2)))
    parts.replace("scales", (blob + more)[: 2 * scales], 2)
