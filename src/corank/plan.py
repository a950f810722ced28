"""A plan: plain numbers that say which layer gets what. JSON both ways; a person may edit it."""

from __future__ import annotations

import difflib
import fnmatch
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from corank.adapters import FITS, full_rank
from corank.codecs import CODECS, Codec
from corank.config import from_json, to_json
from corank.errors import ConfigError, ModelError
from corank.files import read_at_most, write_whole
from corank.rounding import ROUNDERS, Nearest, Rounder
from corank.statistics.input_ranges import RANGES as INPUT_RANGES

__all__ = ["TALLEST", "LayerPlan", "Plan", "match"]

TALLEST = 1 << 14  # outputs of a layer, up to which products of their gradients with each other are looked at

_VERSION = 1
_MEASURED = ("index",)  # fields of a codec that each fitted one has for itself
_LARGEST_BYTES = 64_000_000  # of a plan's file


@dataclass(frozen=True)
class LayerPlan:
    """What happens to one layer.

    Args:
        codec: which values its weights may take; None leaves the layer in float.
        rounder: which value each weight takes.
        rank: of the adapter; 0 for none.
        adapter_bits: of the adapter's factors, 2 to 8.
        fit: how the adapter is fitted, one of :data:`corank.adapters.FITS`.
        rounds: times that rounding and adapter are fitted in turn (requantize ``W - BA``, refit ``BA``); the best
            round is kept. 1 is the paper's: round, then fit.
        bias_correction: fit to the inputs less their mean and let the bias take up the mean error.
        sequential: code the layer against the inputs that the layers before it, already coded, feed it, corrected
            towards the float network's outputs.
        inputs: bits that the layer's inputs are rounded to, 1 to 8; None leaves them in float. Those of 1 bit come from
            training alone.
        input_range: where inputs are clipped, one of :data:`~corank.statistics.input_ranges.RANGES`.
        sparsity: share of the weights, the smallest in magnitude, that become zero, from 0 to below 1. The codec must
            have a zero in every row. A file gets smaller by it where its codes are coded (``corank.save``'s coder).
        refits: times that codes and scales are fitted to each other by the output they give, before the codes are
            rounded; the scales are then fitted to the codes once more. 0 leaves scales as the codec fits them. For
            codecs with scales of fp16; see ``docs/rounding.md``.
        input_shifts: of rounded inputs: one for each of their channels, 1 for all, or 0 for none. They come from
            training alone.
    """

    codec: Codec | None
    rounder: Rounder = field(default_factory=Nearest)
    rank: int = 0
    adapter_bits: int = 8
    fit: str = "svd"
    rounds: int = 1
    bias_correction: bool = False
    sequential: bool = False
    inputs: int | None = None
    input_range: str = "mse"
    sparsity: float = 0.0
    refits: int = 0
    input_shifts: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 0:
            raise ConfigError(f"rank={self.rank!r}: a whole number, 0 for no adapter")
        if type(self.adapter_bits) is not int or self.adapter_bits not in range(2, 9):
            raise ConfigError(f"adapter_bits={self.adapter_bits!r}: adapters are stored in 2 to 8 bits")
        if not isinstance(self.fit, str) or self.fit not in FITS:
            raise ConfigError(f"fit={self.fit!r}: an adapter is fitted by one of {', '.join(FITS)}")
        if isinstance(self.rounds, bool) or not isinstance(self.rounds, int) or not 1 <= self.rounds <= 100:
            raise ConfigError(f"rounds={self.rounds!r}: a whole number from 1 to 100")
        _check_truth("bias_correction", self.bias_correction)
        _check_truth("sequential", self.sequential)
        _check_inputs(self.inputs, self.input_shifts)
        if type(self.sparsity) not in (int, float) or not 0 <= self.sparsity < 1:
            raise ConfigError(f"sparsity={self.sparsity!r}: a share of the weights, from 0 to below 1, e.g. 0.9")
        if type(self.refits) is not int or not 0 <= self.refits <= 100:
            raise ConfigError(f"refits={self.refits!r}: a whole number from 0 to 100, e.g. 4")
        if not isinstance(self.input_range, str) or self.input_range not in INPUT_RANGES:
            raise ConfigError(f"input_range={self.input_range!r}: one of {', '.join(INPUT_RANGES)}")

    def may_adapt(self, shape: tuple[int, int, int]) -> bool:
        """Whether an adapter may pay in a layer of that shape ``(G, R, C)``: 8 bits lose nothing to reclaim, that of a
        depthwise layer would be larger than its weight, and of one with very many outputs nothing is measured."""
        return self.codec is not None and self.codec.bits < 8 and full_rank(shape) > 0 and shape[1] <= TALLEST

    def on_layer(self, name: str) -> LayerPlan:
        """The plan as it is carried out on the layer of that name: a rounder that draws has draws of its own there."""
        return replace(self, rounder=self.rounder.drawing_for(name))

    def to_json(self) -> dict[str, Any]:
        """Every field, plain."""
        return {
            "codec": None if self.codec is None else to_json(self.codec, CODECS),
            "rounder": to_json(self.rounder, ROUNDERS),
            "rank": self.rank,
            "adapter_bits": self.adapter_bits,
            "fit": self.fit,
            "rounds": self.rounds,
            "bias_correction": self.bias_correction,
            "sequential": self.sequential,
            "inputs": self.inputs,
            "input_range": self.input_range,
            "sparsity": float(self.sparsity),
            "refits": self.refits,
            "input_shifts": self.input_shifts,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LayerPlan:
        """The inverse of :meth:`to_json`."""
        known = set(cls.__dataclass_fields__)
        unknown = sorted(set(data) - known)
        if unknown or "codec" not in data:
            given = f"unknown field {unknown[0]!r}" if unknown else "no field 'codec'"
            raise ConfigError(f"a layer's plan has {given}; its fields are {', '.join(sorted(known))}")
        codec = None if data["codec"] is None else from_json(data["codec"], CODECS, "codec")
        rounder = from_json(data.get("rounder", {"kind": "nearest"}), ROUNDERS, "rounder")
        rest = {name: value for name, value in data.items() if name not in ("codec", "rounder")}
        return cls(codec=codec, rounder=rounder, **rest)


@dataclass(frozen=True)
class Plan:
    """Layer name to :class:`LayerPlan`, in the order the layers run."""

    layers: Mapping[str, LayerPlan]

    def with_ranks(self, ranks: Mapping[str, int]) -> Plan:
        """The same plan with the ranks of the named layers changed."""
        return Plan({name: replace(layer, rank=ranks.get(name, layer.rank)) for name, layer in self.layers.items()})

    def with_codecs(self, codecs: Mapping[str, Codec]) -> Plan:
        """The same plan with the codecs of the named layers changed."""
        return Plan({name: replace(layer, codec=codecs.get(name, layer.codec)) for name, layer in self.layers.items()})

    def coded(self) -> dict[str, LayerPlan]:
        """The layers that are quantized."""
        return {name: layer for name, layer in self.layers.items() if layer.codec is not None}

    @property
    def has_adapters(self) -> bool:
        """Whether any layer gets one."""
        return any(layer.rank for layer in self.coded().values())

    def to_json(self) -> dict[str, Any]:
        """``{"format", "default", "layers"}``; each layer lists only what differs from the default."""
        full = {name: layer.to_json() for name, layer in self.layers.items()}
        default: dict[str, Any] = {}
        for key in next(iter(full.values()), {}):
            texts = Counter(json.dumps(_common(layer[key]), sort_keys=True) for layer in full.values())
            default[key] = json.loads(texts.most_common(1)[0][0])
        layers = {
            name: {key: _own(value, default[key]) for key, value in layer.items() if value != default[key]}
            for name, layer in full.items()
        }
        for later in (
            "sparsity",
            "refits",
            "input_shifts",
        ):  # fields of later versions, left out so that files stay as they were
            if not default.get(later):
                default.pop(later, None)
        return {"format": _VERSION, "default": default, "layers": layers}

    @classmethod
    def from_json(cls, data: Any) -> Plan:
        """The inverse of :meth:`to_json`; checks everything."""
        if not isinstance(data, dict) or not isinstance(data.get("layers"), dict):
            raise ConfigError('a plan is {"format": 1, "default": {...}, "layers": {NAME: {...}}}')
        unknown = sorted(set(data) - {"format", "default", "layers"})
        if unknown:
            raise ConfigError(f"a plan has an unknown entry {unknown[0][:80]!r}; it has format, default and layers")
        given = data.get("format", _VERSION)
        if type(given) is not int or given != _VERSION:
            raise ConfigError(f"a plan of format {str(given)[:80]}; this version reads format {_VERSION}")
        default = data.get("default", {})
        layers = {}
        for name, layer in data["layers"].items():
            if not isinstance(layer, dict) or not isinstance(default, dict):
                raise ConfigError(f"plan, layer {name!r}: an object of fields is expected")
            try:
                layers[name] = LayerPlan.from_json(_whole(layer, default))
            except ConfigError as error:
                raise ConfigError(f"plan, layer {name!r}: {error}") from error
        return cls(layers)

    def save(self, path: str | Path) -> None:
        """Writes the plan as JSON.

        Raises:
            OutputError: when the path cannot be written.
        """
        write_whole(path, json.dumps(self.to_json(), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Reads a plan written by :meth:`save`, or by a person."""
        try:
            data = json.loads(read_at_most(path, _LARGEST_BYTES))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"cannot read a plan from {path}: {error}") from error
        return cls.from_json(data)


def _check_truth(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name}={value!r}: true or false")


def _check_inputs(bits: object, shifts: object) -> None:
    if bits is not None and (type(bits) is not int or not 1 <= bits <= 8):
        raise ConfigError(f"inputs={bits!r}: 1 to 8 bits, or none for inputs in float")
    if type(shifts) is not int or not 0 <= shifts < 1 << 31:
        raise ConfigError(f"input_shifts={shifts!r}: a whole number, 0 for none")
    if shifts and bits is None:
        raise ConfigError(f"input_shifts={shifts}: inputs in float are not shifted")


def _common(value: Any) -> Any:
    """A field's value without what fitted codecs measure."""
    if not isinstance(value, dict):
        return value
    return {key: item for key, item in value.items() if key not in _MEASURED}


def _own(value: Any, default: Any) -> Any:
    """What a layer lists of a field: all of it, or of a codec like the default's what was measured alone."""
    if not isinstance(value, dict) or _common(value) != default:
        return value
    return {key: value[key] for key in _MEASURED if key in value}


def _whole(layer: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """All fields of a layer that lists what differs from the default."""
    codec, common = layer.get("codec"), default.get("codec")
    if isinstance(codec, dict) and isinstance(common, dict) and "kind" not in codec and set(codec) <= set(_MEASURED):
        return {**default, **layer, "codec": {**common, **codec}}
    return {**default, **layer}


def match(pattern: str, names: Iterable[str]) -> list[str]:
    """The layer names that a shell-style pattern (``*``, ``?``, ``[...]``) matches.

    Raises:
        ModelError: when it matches nothing, with the closest names.
    """
    names = list(names)
    found = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        close = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3) or names[:3]
        raise ModelError(
            f"the layer pattern {pattern!r} matches none of the {len(names)} layers; closest: {', '.join(close)}"
        )
    return found
