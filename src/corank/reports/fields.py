"""Reading a run record's fields without trusting them: what is absent, null or of another type is None."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "Record",
    "clean",
    "entries",
    "file_bits",
    "is_rated",
    "layer_name",
    "number",
    "numbers",
    "run_label",
    "text",
]

Record = Mapping[str, Any]

LARGEST = 1e18  # no byte count, weight count or step of a run comes near; a plot of more would overflow


def clean(value: str, limit: int = 200) -> str:
    """`value` without control, bidirectional or unpaired surrogate characters, at most `limit` long.

    Line feeds are kept. A terminal, a picture and a page can all show the result.
    """
    shown = value if len(value) <= limit else value[: limit - 1] + "…"
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in shown)


def number(record: Record, key: str) -> float | None:
    """The finite number under `key`, or None; a number too large to be one of a run is None too."""
    return _finite(record.get(key))


def numbers(record: Record, key: str) -> list[float]:
    """The list of finite numbers under `key`; empty where one of them is not a finite number."""
    values = record.get(key)
    if not isinstance(values, Sequence) or isinstance(values, str):
        return []
    found = [value for value in map(_finite, values) if value is not None]
    return found if len(found) == len(values) else []


def text(record: Record, key: str, limit: int = 200) -> str | None:
    """The text under `key`, cleaned, or None where there is none."""
    value = record.get(key)
    return clean(value, limit) if isinstance(value, str) and value.strip() else None


def entries(record: Record, key: str) -> list[Record]:
    """The list of mappings under `key` (layers, search_history); empty where there is none."""
    values = record.get(key)
    if not isinstance(values, Sequence) or isinstance(values, str):
        return []
    return [value for value in values if isinstance(value, Mapping)]


def run_label(run: Record) -> str:
    """The run's short name; where it has none, one made of the preset, the command and the bits."""
    label = text(run, "label", 60)
    if label is not None:
        return label.replace("\n", " ")
    method = text(run, "preset", 40) or text(run, "search", 40) or text(run, "command", 40) or "run"
    bits = number(run, "bits")
    return method if bits is None else f"{method} {bits:g}"


def layer_name(layer: Record) -> str:
    """The layer's name on one line; the root module, whose name is empty, is called "(model)"."""
    return (text(layer, "name") or "(model)").replace("\n", " ")


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if abs(found) <= LARGEST else None  # which NaN is not


def file_bits(record: Record) -> float | None:
    """Bits a weight that the quantized layers take in the file, their codes entropy-coded; None where not known."""
    bits = weights = 0.0
    for layer in entries(record, "layers"):
        coded, shape = number(layer, "file_bits_per_weight"), numbers(layer, "shape")
        if coded is None or not shape:
            return None
        bits, weights = bits + coded * math.prod(shape), weights + math.prod(shape)
    return bits / weights if weights else None


def is_rated(record: Record) -> bool:
    """Whether codes have a rate, which their width says nothing of."""
    plan = record.get("plan")
    default = plan.get("default") if isinstance(plan, Mapping) else None
    codec = default.get("codec") if isinstance(default, Mapping) else None
    return isinstance(codec, Mapping) and codec.get("kind") in ("rate-uniform", "trellis")
