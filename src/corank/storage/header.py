"""The header of an artifact that anyone may have written: every entry is of its kind, or the file is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from corank.errors import ArtifactError, ConfigError
from corank.layers.structure import Structure, read_structure
from corank.plan import Plan
from corank.storage.model_record import LayerRecord, ModelRecord

__all__ = ["DTYPES", "list_in", "parse_object", "read_run", "read_tensors", "shown", "text_in", "unsound"]

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float16, torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.int32, torch.int16,
        torch.int8, torch.uint8, torch.bool,
    )
}  # fmt: skip
"""Of tensors that a file may hold, by name."""

_REQUIRED = {
    "format", "model", "preset", "search", "bits", "budget", "seed", "iterations", "dtype", "plan", "layers", "folded",
    "skipped", "tensors",
}  # fmt: skip
_OPTIONAL = {"activations", "coders", "coded", "numbers", "recipe", "structure"}
_LARGEST = 1 << 63
_DEEPEST = 12
_LARGEST_RECIPE = 10_000  # values of a recipe, its numbers, texts, lists and objects counted


def parse_object(text: str) -> dict[str, Any]:
    """A header's text as JSON.

    Raises:
        ArtifactError: for text that is no object, that gives a key twice or has numbers that are not finite.
    """
    try:
        header = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise unsound(f"{error}") from error
    if not isinstance(header, dict):
        raise unsound("it is no object")
    if _is_deep(header):
        raise unsound(f"it is nested more than {_DEEPEST} deep")
    return header


def read_run(header: Mapping[str, Any]) -> ModelRecord:
    """What was done, from a header of a known format.

    Raises:
        ArtifactError: naming the entry that is not sound.
    """
    missing, unknown = sorted(_REQUIRED - set(header)), sorted(set(header) - _REQUIRED - _OPTIONAL)
    if missing or unknown:
        raise unsound(f"it has no {missing[0]!r}" if missing else f"it has an unknown entry {unknown[0][:80]!r}")
    plan = _plan(header["plan"])
    layers = {text_in(name, "a layer's name"): _layer(name, entry) for name, entry in _object(header, "layers")}
    if set(layers) != set(plan.coded()) or not layers:
        raise unsound("the plan and the list of layers differ")
    for name, layer in layers.items():
        _check_slots(name, layer, plan)
    dtype = header["dtype"]
    if not isinstance(dtype, str) or dtype not in DTYPES or not DTYPES[dtype].is_floating_point:
        raise unsound(f"dtype is {shown(dtype)}; a model is of float32 or another floating dtype")
    return ModelRecord(
        plan=plan,
        layers=layers,
        folded=_distinct([text_in(name, "folded") for name in list_in(header["folded"], "folded")], "folded"),
        skipped={text_in(name, "skipped"): text_in(why, "skipped") for name, why in _object(header, "skipped")},
        model=_text_or_none(header, "model"),
        preset=_text_or_none(header, "preset"),
        search=_text_or_none(header, "search"),
        bits=_whole_or_none(header, "bits"),
        budget=None if header["budget"] is None else _number(header["budget"], "budget"),
        activations=_whole_or_none(header, "activations"),
        seed=_whole(header["seed"], "seed"),
        iterations=_whole(header["iterations"], "iterations"),
        recipe=_recipe(header["recipe"]) if "recipe" in header else None,
        structure=_structure(header.get("structure", [])),
    )


def read_tensors(header: Mapping[str, Any]) -> dict[str, dict[str, tuple[int, ...]]]:
    """dtype to name to shape of every tensor that is not part of a coded weight, in order.

    Raises:
        ArtifactError: for entries that are no such thing, or a name given twice.
    """
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for kind, entries in _object(header, "tensors"):
        if kind not in DTYPES:
            raise unsound(f"tensors of dtype {shown(kind)}; there are {', '.join(DTYPES)}")
        shapes = found.setdefault(kind, {})
        for entry in list_in(entries, "tensors"):
            if not isinstance(entry, list) or len(entry) != 2:
                raise unsound(f"tensors has {shown(entry)}; an entry is [name, shape]")
            sizes = [_whole(size, "a tensor's shape") for size in list_in(entry[1], "a tensor's shape")]
            if min(sizes, default=0) < 0 or math.prod(sizes) >= _LARGEST:
                raise unsound(f"a tensor of shape {shown(sizes)}")
            shapes[text_in(entry[0], "a tensor's name")] = tuple(sizes)
        if len(shapes) != len(entries):
            raise unsound(f"tensors of dtype {kind} name one twice")
    _distinct([name for shapes in found.values() for name in shapes], "tensors")
    return found


def _plan(data: Any) -> Plan:
    try:
        return Plan.from_json(data)
    except ConfigError as error:
        raise unsound(f"{error}") from error


def _recipe(data: Any) -> Mapping[str, Any]:
    """An object of plain values: nothing is made of it here, and nothing that it names is looked up."""
    if not isinstance(data, dict):
        raise unsound(f"recipe is {shown(data)}, not an object")
    pending: list[Any] = [data]
    count = 0
    while pending:
        value = pending.pop()
        count += 1
        if count > _LARGEST_RECIPE:
            raise unsound(f"recipe has more than {_LARGEST_RECIPE} values")
        if isinstance(value, dict):
            pending += [text_in(key, "a recipe's key") for key in value]
            pending += value.values()
        elif isinstance(value, list):
            pending += value
        elif isinstance(value, str):
            text_in(value, "a recipe's text")
        elif type(value) is int:
            _whole(value, "a recipe's number")
        elif not (value is None or isinstance(value, bool) or (type(value) is float and math.isfinite(value))):
            raise unsound(f"recipe has {shown(value)}")
    return data


def _structure(data: Any) -> Structure:
    try:
        structure = read_structure(data)
    except ConfigError as error:
        raise unsound(f"{error}") from error
    for entry in structure:
        for value in entry.values():
            for text in (value,) if isinstance(value, str) else value if isinstance(value, dict) else ():
                text_in(text, "a structure's name")
    return structure


def _check_slots(name: str, layer: LayerRecord, plan: Plan) -> None:
    try:
        layer.slots(plan.layers[name])
    except ConfigError as error:  # a codec that says how much is stored may say what no layer of that shape stores
        raise unsound(f"layer {shown(name)}: {error}") from error


def _layer(name: str, entry: Any) -> LayerRecord:
    if not isinstance(entry, list) or len(entry) != 4:
        raise unsound(f"layer {shown(name)} has {shown(entry)}; an entry is [G, R, C, error]")
    groups, rows, columns, error = entry
    if not all(type(size) is int and 0 < size < 1 << 31 for size in (groups, rows, columns)):
        raise unsound(f"layer {shown(name)} has a shape of {shown(entry[:3])}")
    return LayerRecord((groups, rows, columns), math.nan if error is None else _number(error, "a layer's error"))


def _object(header: Mapping[str, Any], key: str) -> Iterable[tuple[str, Any]]:
    if not isinstance(header[key], dict):
        raise unsound(f"{key} is {shown(header[key])}, not an object")
    return header[key].items()


def list_in(value: Any, what: str) -> list[Any]:
    """The value, which must be a list."""
    if not isinstance(value, list):
        raise unsound(f"{what} is {shown(value)}, not a list")
    return value


def _distinct(names: list[str], what: str) -> tuple[str, ...]:
    if len(set(names)) != len(names):
        raise unsound(f"{what} names one twice")
    return tuple(names)


def text_in(value: Any, what: str) -> str:
    """The value, which must be a text that a file and a terminal can hold."""
    # What JSON escapes may name half of a letter, which no file and no terminal can hold.
    if not isinstance(value, str) or not (value.isascii() or value.encode(errors="ignore").decode() == value):
        raise unsound(f"{what} is {shown(value)}, not a text")
    return value


def _text_or_none(header: Mapping[str, Any], key: str) -> str | None:
    return None if header[key] is None else text_in(header[key], key)


def _whole(value: Any, what: str) -> int:
    if type(value) is not int or not -_LARGEST < value < _LARGEST:
        raise unsound(f"{what} is {shown(value)}, not a whole number of 64 bits")
    return value


def _whole_or_none(header: Mapping[str, Any], key: str) -> int | None:
    return None if header.get(key) is None else _whole(header[key], key)


def _number(value: Any, what: str) -> float:
    if type(value) not in (int, float) or not -_LARGEST < value < _LARGEST:
        raise unsound(f"{what} is {shown(value)}, not a number")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers may disagree on what an object means that gives a key twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object gives a key twice")
    return found


def _is_deep(value: Any) -> bool:
    """Whether containers stand in one another further than any header's do; what is deep exhausts the stack."""
    level = [value]
    for _ in range(_DEEPEST):
        below = [inner.values() if isinstance(inner, dict) else inner for inner in level]
        level = [inner for inners in below for inner in inners if isinstance(inner, (dict, list))]
        if not level:
            return False
    return True


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant[:40]} is no JSON number, or not a finite one")


def _finite(text: str) -> float:
    """A number with a fraction or an exponent: 1e999 is as infinite as the constant that JSON does not know."""
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def shown(value: Any) -> str:
    """A value for a message: short, and whatever it is."""
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = repr(value) if not isinstance(value, int) or value.bit_length() < 64 else "a huge number"
    return text if len(text) <= 60 else f"{text[:57]}..."


def unsound(why: str) -> ArtifactError:
    """The error that says why a header is refused."""
    return ArtifactError(f"the header is not sound: {why}")
