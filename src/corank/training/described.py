"""Frozen settings that hold others, such as a way of training its codec, to plain JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar, cast

from corank.codecs import CODECS, Codec
from corank.config import choose, from_json, to_json
from corank.errors import ConfigError
from corank.registry import Registry
from corank.training.callbacks import CALLBACKS, Callback
from corank.training.inputs import INPUTS, InputTraining
from corank.training.penalties import PENALTIES, Penalty
from corank.training.weights import WEIGHTS, WeightTraining

__all__ = ["described", "read"]

T = TypeVar("T")
_TABLES: tuple[tuple[type, Registry[Any], str], ...] = (
    (Codec, CODECS, "codec"),
    (WeightTraining, WEIGHTS, "way to train weights"),
    (InputTraining, INPUTS, "way to train inputs"),
    (Penalty, PENALTIES, "penalty"),
    (Callback, CALLBACKS, "callback"),
)


def described(value: Any) -> dict[str, Any]:
    """A setting as ``{"kind": ..., field: value, ...}``, settings inside it alike."""
    table = next(table for base, table, _ in _TABLES if isinstance(value, base))
    plain, inner = _parts(value)
    return {**to_json(plain, table), **{name: described(item) for name, item in inner.items()}}


def read(data: Any, base: type[T]) -> T:
    """The inverse of :func:`described`, for a setting of the kind ``base``.

    Raises:
        ConfigError: for unknown kinds and fields, and values of other types.
    """
    table, what = next((table, what) for one, table, what in _TABLES if one is base)
    if not isinstance(data, Mapping) or "kind" not in data:
        raise ConfigError(f'a {what} is written {{"kind": NAME, ...}}, not {str(data)[:80]!r}')
    entry, inner = choose(cast(str, data["kind"]), table, what), {}
    for field in fields(entry):
        kind = next((one for one, _, _ in _TABLES if isinstance(_default(field), one)), None)
        if kind is not None and field.name in data:
            inner[field.name] = read(data[field.name], kind)
    plain = from_json({name: item for name, item in data.items() if name not in inner}, table, what)
    return cast(T, type(plain)(**{**_values(plain), **inner})) if inner else cast(T, plain)


def _default(field: Any) -> Any:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else None


def _values(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _parts(value: Any) -> tuple[Any, dict[str, Any]]:
    """The setting with those inside it at their defaults, and those inside it."""
    own = _values(value)
    inner = {name: item for name, item in own.items() if any(isinstance(item, base) for base, _, _ in _TABLES)}
    return type(value)(**{name: item for name, item in own.items() if name not in inner}), inner
