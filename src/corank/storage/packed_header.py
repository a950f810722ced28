"""The header of an artifact in few bytes: a JSON text, deflated, and columns of numbers behind it.

``docs/artifact.md`` has the layout. What is alike from layer to layer is written so that it repeats (names as ways
from other names, a plan's fields as far as they differ from the default), and deflate starts with a dictionary of the
words that headers have. Numbers that follow no rule (errors, ranks, rates, sizes) are taken out of the text, where a
digit would take four to five bits, and stand in columns of whole numbers.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from corank.storage.header import list_in, parse_object, shown, text_in, unsound
from corank.storage.header_dictionary import DICTIONARY
from corank.storage.number_columns import ColumnReader, column
from corank.storage.relative_names import BesideLayers, chained, unchained

__all__ = ["deflated", "inflated", "pack_header", "unpack_header"]

_RAW = -15  # no frame of zlib's around the stream
_SMALL_BYTES, _MOST_EXPANDED = 1 << 20, 64  # a text longer than both that and that many times its bytes is refused
_HUGE_RANK = 1 << 32  # a rank of so much, which means the full rank, stays in the text
_PLACE = "#"  # stands in the text for a number of the thousandths' column
_UNKNOWN = 1000  # the mantissa of an error that is not known; others have three digits


def pack_header(header: Mapping[str, Any]) -> bytes:
    """The bytes of a header as :func:`corank.storage.contents.header_of` makes it, with or without coded runs."""
    plan, layers = header["plan"], header["layers"]
    names, thousandths = list(layers), list[int]()
    # Ranks follow no rule, so each layer's stands in a column, those equal to the default as well.
    default = plan["default"].get("rank", 0)
    ranks = [layer.get("rank", default) for layer in plan["layers"].values()]
    rest = map(_without_rank, plan["layers"].values(), ranks)
    short = {**plan, "layers": [_taken_out(layer, thousandths) for layer in rest]}
    if list(plan["layers"]) != names:
        short["names"] = _beside(names, plan["layers"])
    text = {key: item for key, item in header.items() if key != "format"}
    text |= {"plan": short, "layers": chained(names), "folded": _beside(names, header["folded"])}
    # All groups, then all rows, then all columns: like numbers beside each other repeat, and deflate sees it.
    text["shapes"] = [layer[place] for place in range(3) for layer in layers.values()]
    text["tensors"] = {kind: _short_list(layers, entries) for kind, entries in header["tensors"].items()}
    sizes: list[int] = []
    if "coded" in header:
        # Counted from 1, since 0 is a run that stays fixed.
        text["coded"] = [entry and entry[0] + 1 for entry in header["coded"]]
        sizes = [entry[1] for entry in header["coded"] if entry]
    mantissas, exponents = _decimals([layer[3] for layer in layers.values()])
    columns = (mantissas, exponents, [rank % _HUGE_RANK for rank in ranks], thousandths, sizes)
    return deflated(json.dumps(text, separators=(",", ":")).encode()) + b"".join(map(column, columns))


def unpack_header(block: bytes) -> dict[str, Any]:
    """The header, without its format, of bytes that anyone may have written; its entries are still to be checked.

    Raises:
        ArtifactError: for bytes that are no header.
    """
    text, rest = inflated(block)
    header, columns = parse_object(text), ColumnReader(rest)
    missing = {"plan", "layers", "shapes", "folded", "tensors"} - set(header)
    if missing or "format" in header:
        raise unsound(f"it has no {min(missing)!r}" if missing else "it has a format of its own")
    names = unchained(_texts(header["layers"], "layers"))
    # Columns say neither their length nor their name: they are taken in the order of writing, lengths from the text.
    mantissas, exponents = columns.take(len(names)), columns.take(len(names))
    errors = [_error(mantissa, exponent) for mantissa, exponent in zip(mantissas, exponents, strict=True)]
    header["layers"] = _layers(names, list_in(header.pop("shapes"), "shapes"), errors)
    header["plan"] = _plan(header["plan"], names, columns)
    header["folded"] = _read_beside(names, header["folded"], "folded")
    header["tensors"] = _long_lists(header["layers"], header["tensors"])
    if "coded" in header:
        header["coded"] = _coded(list_in(header["coded"], "coded"), columns)
    # Bytes behind the last column would be a second way to write one header.
    columns.finish()
    return header


def deflated(text: bytes) -> bytes:
    """A text in few bytes, by the dictionary of headers' words."""
    packed = _squeezed(text, 9)
    # A text that compresses further than a reader allows is stored as it is.
    return packed if len(text) <= max(_SMALL_BYTES, _MOST_EXPANDED * len(packed)) else _squeezed(text, 0)


def _squeezed(text: bytes, level: int) -> bytes:
    squeezer = zlib.compressobj(level, zlib.DEFLATED, _RAW, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
    return squeezer.compress(text) + squeezer.flush()


def inflated(block: bytes) -> tuple[str, bytes]:
    """The text, and what stands behind its stream: the inverse of :func:`deflated`.

    Raises:
        ArtifactError: for bytes that are no such stream, or one of a text far longer than they are.
    """
    most = max(_SMALL_BYTES, _MOST_EXPANDED * len(block))
    stream = zlib.decompressobj(_RAW, DICTIONARY)
    try:
        # One byte more than allowed tells too long from just right, and no more is ever made.
        text = stream.decompress(block, most + 1)
        if len(text) > most or not stream.eof:
            raise unsound(f"its {len(block)} bytes do not end, or are more than {most} bytes of text")
        return text.decode(), stream.unused_data
    except (zlib.error, UnicodeDecodeError) as error:
        raise unsound(f"{error}") from error


def _texts(value: Any, what: str) -> list[str]:
    return [text_in(item, what) for item in list_in(value, what)]


def _beside(names: Sequence[str], listed: Sequence[str] | Mapping[str, Any]) -> list[str]:
    beside = BesideLayers(names)
    return [beside.way(name)[0] for name in listed]


def _read_beside(names: Sequence[str], ways: Any, what: str) -> list[str]:
    beside = BesideLayers(names)
    return [beside.name(way)[0] for way in _texts(ways, what)]


def _short_list(layers: Mapping[str, list[Any]], entries: Sequence[list[Any]]) -> list[Any]:
    """Tensors: the way alone of one with a number for each output of the layer beside it, else way and shape."""
    beside, shapes, found = BesideLayers(list(layers)), list(layers.values()), []
    for name, shape in entries:
        way, place = beside.way(name)
        # G R outputs: what biases and a norm's four tensors have.
        expected = place is not None and shape == [shapes[place][0] * shapes[place][1]]
        found.append(way if expected else [way, *shape])
    return found


def _long_lists(layers: Mapping[str, list[Any]], tensors: Any) -> dict[str, list[Any]]:
    if not isinstance(tensors, dict):
        raise unsound(f"tensors is {shown(tensors)}, not an object")
    return {kind: _long_list(layers, list_in(entries, "tensors")) for kind, entries in tensors.items()}


def _long_list(layers: Mapping[str, list[Any]], entries: list[Any]) -> list[Any]:
    beside, shapes, found = BesideLayers(list(layers)), list(layers.values()), []
    for entry in entries:
        way, *shape = entry if isinstance(entry, list) and entry else [entry]
        name, place = beside.name(text_in(way, "a tensor's name"))
        if not isinstance(entry, list):
            if place is None:
                raise unsound(f"tensor {shown(name)} has no shape, and no layer beside it")
            shape = [shapes[place][0] * shapes[place][1]]
        found.append([name, shape])
    return found


def _layers(names: list[str], shapes: list[Any], errors: Sequence[float | None]) -> dict[str, list[Any]]:
    count = len(names)
    if len(shapes) != 3 * count or not all(type(size) is int for size in shapes):
        raise unsound(f"shapes is not three whole numbers for each of {count} layers")
    if len(set(names)) != count:
        raise unsound("layers names one twice")
    sides = (shapes[:count], shapes[count : 2 * count], shapes[2 * count :])
    return {name: [*sizes] for name, *sizes in zip(names, *sides, errors, strict=True)}


def _plan(plan: Any, names: list[str], columns: ColumnReader) -> dict[str, Any]:
    if not isinstance(plan, dict) or not isinstance(plan.get("default"), dict):
        raise unsound(f"plan is {shown(plan)}, not an object with a default")
    layers, default = list_in(plan.get("layers"), "a plan's layers"), plan["default"].get("rank", 0)
    if "names" in plan:
        names = _read_beside(names, plan["names"], "a plan's names")
    if len(layers) != len(names) or len(set(names)) != len(names) or not all(isinstance(one, dict) for one in layers):
        raise unsound(f"a plan's layers are not one object for each of {len(names)} names")
    ranks, places = columns.take(len(layers)), sum(map(_places, layers))
    thousandths = iter(columns.take(places))
    layers = [_put_in(layer, thousandths) for layer in layers]
    pairs = zip(layers, ranks, strict=True)
    layers = [layer if "rank" in layer or rank == default else {**layer, "rank": rank} for layer, rank in pairs]
    return {
        **{key: item for key, item in plan.items() if key != "names"},
        "layers": dict(zip(names, layers, strict=True)),
    }


def _without_rank(layer: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """A layer's fields but its rank, unless no column could hold it."""
    rest = {key: item for key, item in layer.items() if key != "rank"}
    return {**rest, "rank": rank} if rank >= _HUGE_RANK else rest


def _taken_out(value: Any, thousandths: list[int]) -> Any:
    """A field of a plan without its fractions of up to three digits, which are added to ``thousandths``."""
    if isinstance(value, dict):
        return {key: _taken_out(item, thousandths) for key, item in value.items()}
    if isinstance(value, list):
        return [_taken_out(item, thousandths) for item in value]
    # Compared as text, as JSON writes it: only what comes back to the last bit is taken out.
    if type(value) is float and 0 <= value < 1000 and str(round(1000 * value) / 1000) == str(value):
        thousandths.append(round(1000 * value))
        return _PLACE
    # A text that begins like a place gets one more sign in front; the reader takes it off.
    return _PLACE + value if isinstance(value, str) and value.startswith(_PLACE) else value


def _put_in(value: Any, thousandths: Iterator[int]) -> Any:
    """The inverse of :func:`_taken_out`."""
    if isinstance(value, dict):
        return {key: _put_in(item, thousandths) for key, item in value.items()}
    if isinstance(value, list):
        return [_put_in(item, thousandths) for item in value]
    if value == _PLACE:
        return next(thousandths) / 1000
    return value[1:] if isinstance(value, str) and value.startswith(_PLACE) else value


def _places(value: Any) -> int:
    """How many fractions were taken out."""
    if isinstance(value, (dict, list)):
        return sum(map(_places, value.values() if isinstance(value, dict) else value))
    return int(value == _PLACE)


def _coded(entries: list[Any], columns: ColumnReader) -> list[Any]:
    """Of each run, 0 or its coder's number from 0 on and its bytes; in the text coders count from 1 on."""
    if not all(type(entry) is int and entry >= 0 for entry in entries):
        raise unsound("coded is not a list of coders' numbers")
    sizes = iter(columns.take(sum(entry > 0 for entry in entries)))
    return [entry and [entry - 1, next(sizes)] for entry in entries]


def _decimals(errors: Sequence[float | None]) -> tuple[list[int], list[int]]:
    """Each number as ``mantissa * 10^-exponent`` of three digits."""
    parts = [None if error is None else f"{error:.2e}".replace(".", "").split("e") for error in errors]
    # "1.23e-04" is 123 and -4: two digits stood behind the point.
    powers = [2 - int(part[1]) for part in parts if part and int(part[0])]
    usual = powers[0] if powers else 0  # where any would do: it must not widen the column
    mantissas = [_UNKNOWN if part is None else int(part[0]) for part in parts]
    exponents = [2 - int(part[1]) if part and int(part[0]) else usual for part in parts]
    return mantissas, exponents


def _error(mantissa: int, exponent: int) -> float | None:
    if mantissa == _UNKNOWN:
        return None
    if abs(mantissa) > _UNKNOWN or abs(exponent) > 400:
        raise unsound(f"a layer's error is {mantissa}e{-exponent}")
    error = float(f"{mantissa}e{-exponent}")
    return error if math.isfinite(error) else None
