"""Run records: one plain JSON object per run, or several under "runs"."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corank.errors import ArtifactError, ConfigError, DataError
from corank.files import write_whole
from corank.reports.fields import Record

__all__ = ["FORMAT", "read_record", "write_record"]

FORMAT = 1
MAX_BYTES = 64_000_000
MAX_DEPTH = 40
REQUIRED = ("command", "model")
INHERITED = ("format", "command", "version", "model", "seed")
TEXTS = ("command", "version", "model", "metric", "preset", "search", "label", "reproduce")
NUMBERS = (
    "seed",
    "float_value",
    "quantized_value",
    "bits",
    "activations",
    "equivalent_bits",
    "stored_bytes",
    "float_bytes",
    "iterations",
    "seconds",
    "peak_memory_bytes",
)
LAYER_NUMBERS = (
    "bits", "rank", "max_rank", "bytes", "relative_output_error", "inputs", "input_step", "input_offset",
    "code_entropy", "relative_entropy", "bits_per_weight", "file_bits_per_weight",
)  # fmt: skip
LAYER_LISTS = ("shape", "spectrum", "code_counts", "weight_range", "coded_counts", "float_counts")
OBJECTS = ("skipped", "plan", "stored_parts", "attacked", "float_attacked", "analysis", "pruned", "supernet")
HISTORY_NUMBERS = (
    "iteration", "loss", "largest", "divergence", "extra_bits", "budget_bits", "before", "after",
    "score", "oscillations", "moved", "norm", "rate", "rate_bits", "sparsity", "condition", "condition_max",
    "log_norms", "norm_gradient", "norm_noise", "norm_curvature",
)  # fmt: skip


def read_record(path: str | Path) -> list[dict[str, Any]]:
    """Read the runs of a record file: one run, or an object with several under "runs".

    A run under "runs" takes `format`, `command`, `version`, `model` and `seed` from the object around it
    where it has none of its own. `command` and `model` must be there; other fields may be absent or null.

    Raises:
        DataError: the file cannot be read.
        ArtifactError: it is too large, not JSON, of another format, or a field is missing or wrong.
    """
    path = Path(path)
    content = _parse(path, _read_bounded(path))
    if not isinstance(content, dict):
        raise _unsound(path, f"it holds {_kind(content)}, not an object")
    runs = [content] if content.get("runs") is None else _inherit(path, content)
    for index, run in enumerate(runs):
        _check_run(path, "the run" if len(runs) == 1 else f"run {index}", run)
    return runs


def write_record(path: str | Path, record: Mapping[str, Any]) -> None:
    """Write one run, or `{"runs": [...]}`, as JSON with two spaces of indent, whole or not at all.

    Numbers that are not finite become null; `format` is added where it is missing.

    Raises:
        ConfigError: the record holds something that is not plain JSON, such as a tensor.
        OutputError: the file cannot be written; a file that was there before is as it was.
    """
    plain = _plain({"format": FORMAT, **record}, "record", 0)
    content = json.dumps(plain, indent=2, allow_nan=False) + "\n"
    write_whole(Path(path), content.encode("ascii"))


def _read_bounded(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(
            f"cannot read the record {str(path)!r}: {error.strerror or error}; "
            "give a file written with --record FILE.json"
        ) from error
    if len(content) > MAX_BYTES:
        raise _unsound(path, f"it is larger than {MAX_BYTES // 1_000_000} MB")
    return content


def _parse(path: Path, content: bytes) -> Any:
    try:
        parsed = json.loads(
            content.decode("utf-8"), parse_constant=_refuse, parse_float=_parse_float, parse_int=_parse_int
        )
        _check_depth(parsed, 0)
    except (ValueError, RecursionError) as error:
        raise _unsound(path, f"it is not sound JSON ({error})") from error
    return parsed


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")


def _parse_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:40]} is too large")
    return value


def _parse_int(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"the number {digits[:20]}... is too large")
    return int(digits)


def _check_depth(value: object, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        for inner in value.values():
            _check_depth(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check_depth(inner, depth + 1)


def _inherit(path: Path, content: dict[str, Any]) -> list[dict[str, Any]]:
    runs = content["runs"]
    if not isinstance(runs, list) or not runs or not all(isinstance(run, dict) for run in runs):
        raise _unsound(path, 'its "runs" is not a list of at least one object')
    common = {key: content[key] for key in INHERITED if key in content}
    return [{**common, **run} for run in runs]


def _check_run(path: Path, where: str, run: Record) -> None:
    if run.get("format") != FORMAT:
        raise _unsound(
            path,
            f"{where} has format {_shown(run.get('format'))}; this version of corank reads format {FORMAT}",
        )
    missing = [key for key in REQUIRED if run.get(key) is None]
    if missing:
        raise _unsound(path, f"{where} has no {', '.join(missing)}")
    _check_fields(path, where, run, TEXTS, _TEXT)
    _check_fields(path, where, run, NUMBERS, _NUMBER)
    _check_fields(path, where, run, OBJECTS, _OBJECT)
    for key in ("attacked", "float_attacked"):
        scores = run.get(key) or {}
        _check_fields(path, f"{where}, {key}", scores, tuple(scores), _NUMBER)
    _check_analysis(path, where, run.get("analysis") or {})
    _check_fields(path, where, run, ("layers", "search_history"), _OBJECTS)
    for name, reason in (run.get("skipped") or {}).items():
        if not isinstance(reason, str):
            raise _unsound(path, f"{where}: the reason for skipping {_shown(name)} is not a text")
    for index, layer in enumerate(run.get("layers") or []):
        _check_layer(path, f"{where}, layer {index}", layer)
    for index, step in enumerate(run.get("search_history") or []):
        _check_fields(path, f"{where}, search step {index}", step, HISTORY_NUMBERS, _NUMBER)


def _check_analysis(path: Path, where: str, found: Record) -> None:
    _check_fields(path, f"{where}, its analysis", found, ("what",), _TEXT)
    _check_fields(path, f"{where}, its analysis", found, ("layers",), _OBJECTS)
    _check_fields(path, f"{where}, its analysis", found, ("no_theory", "not_compared"), _OBJECT)
    _check_fields(path, f"{where}, its analysis", found, ("spared",), _NAMES)


def _check_layer(path: Path, where: str, layer: Record) -> None:
    if not isinstance(layer.get("name"), str):
        raise _unsound(path, f"{where} has no name")
    _check_fields(path, where, layer, LAYER_NUMBERS, _NUMBER)
    _check_fields(path, where, layer, LAYER_LISTS, _LIST)
    _check_fields(path, where, layer, ("stored_bits",), _OBJECT)


def _check_fields(path: Path, where: str, record: Record, keys: tuple[str, ...], kind: _Kind) -> None:
    for key in keys:
        value = record.get(key)
        if value is not None and not kind.holds(value):
            raise _unsound(path, f"{where}: {key} is {_shown(value)}, not {kind.words}")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_list_of_objects(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and all(_is_text(item) for item in value)


def _is_list_of_numbers(value: object) -> bool:
    return isinstance(value, list) and all(_is_number(item) for item in value)


@dataclass(frozen=True)
class _Kind:
    """What a field may hold, in words and as a question."""

    words: str
    holds: Callable[[object], bool]


_TEXT, _NUMBER, _OBJECT = _Kind("a text", _is_text), _Kind("a number", _is_number), _Kind("an object", _is_object)
_OBJECTS = _Kind("a list of objects", _is_list_of_objects)
_LIST, _NAMES = _Kind("a list of numbers", _is_list_of_numbers), _Kind("a list of texts", _is_list_of_texts)


def _plain(value: object, where: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ConfigError(f"{where[:200]} is nested more than {MAX_DEPTH} deep; a record is a flat, plain object")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {_key(key, where): _plain(inner, f"{where}.{key}", depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{where}[{index}]", depth + 1) for index, inner in enumerate(value)]
    raise ConfigError(
        f"{where[:200]} is {_kind(value)}; a record holds None, bool, int, float, str, lists and dicts: "
        "write float(value) or value.tolist()"
    )


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise ConfigError(f"{where[:200]} has the key {key!r}; the keys of a record are texts: write str(key)")
    return key


def _unsound(path: Path, why: str) -> ArtifactError:
    return ArtifactError(
        f"{str(path)!r} is not a corank run record: {why}; give a file written with --record FILE.json"
    )


def _kind(value: object) -> str:
    return f"a value of type {type(value).__name__}"


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
