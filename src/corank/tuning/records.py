"""What was measured on models before: read, so that a tuner need not begin from nothing, and added to."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from corank.errors import ConfigError
from corank.files import read_at_most, write_whole
from corank.tuning.space import Configuration, key_of

__all__ = ["Record", "load_records", "remember", "shipped_records"]

_VERSION = 1
_LARGEST_BYTES = 50_000_000


@dataclass(frozen=True)
class Record:
    """What one model scored in one space.

    Attributes:
        space: its name.
        model: a name for the reader.
        descriptors: numbers that tell models apart, see :mod:`corank.tuning.descriptors`.
        reference: what the float model scored on the same samples.
        samples: that were scored.
        trials: configurations with their scores.
    """

    space: str
    model: str
    descriptors: Mapping[str, float]
    reference: float
    samples: int
    trials: tuple[tuple[Configuration, float], ...]

    @classmethod
    def from_json(cls, data: Any) -> Record:
        """The inverse of :meth:`to_json`; raises ConfigError for data of another form."""
        try:
            trials = tuple((dict(one["configuration"]), float(one["score"])) for one in data["trials"])
            numbers = {str(name): float(value) for name, value in data["descriptors"].items()}
            found = cls(
                str(data["space"]), str(data["model"]), numbers, float(data["reference"]), int(data["samples"]), trials
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ConfigError(f"no record of a model: {type(error).__name__}: {error}") from error
        if not all(map(math.isfinite, (found.reference, *numbers.values(), *(score for _, score in trials)))):
            raise ConfigError(f"the record of {found.model!r:.80} holds a number that is not finite")
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        trials = [{"configuration": dict(one), "score": score} for one, score in self.trials]
        return {**asdict(self), "descriptors": dict(self.descriptors), "trials": trials}


def shipped_records(space: str) -> tuple[Record, ...]:
    """The records that come with the package, of the space of that name."""
    place = files("corank.tuning").joinpath("measured", f"{space}.json")
    return _read(place.read_text(encoding="utf-8"), str(place)) if place.is_file() else ()


def load_records(path: str | Path) -> tuple[Record, ...]:
    """The records of a file.

    Raises:
        ConfigError: for a file that cannot be read, or of another kind.
    """
    try:
        text = read_at_most(path, _LARGEST_BYTES).decode()
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the records {str(path)!r}: {error}") from error
    return _read(text, str(path))


def remember(path: str | Path, record: Record) -> None:
    """Adds a record to a file, which is made where it is missing; trials of the same model and space are joined.

    Raises:
        ConfigError: for a file of another kind. OutputError: when it cannot be written.
    """
    known = list(load_records(path)) if Path(path).exists() else []
    same = [one for one in known if (one.space, one.model, one.samples) == (record.space, record.model, record.samples)]
    others = [one for one in known if one not in same]
    write_whole(path, _text([*others, _joined([*same, record])]))


def _joined(records: Sequence[Record]) -> Record:
    last = records[-1]
    trials = {key_of(configuration): (configuration, score) for one in records for configuration, score in one.trials}
    return Record(last.space, last.model, last.descriptors, last.reference, last.samples, tuple(trials.values()))


def _text(records: Iterable[Record]) -> str:
    return json.dumps({"version": _VERSION, "records": [one.to_json() for one in records]}, indent=0) + "\n"


def _read(text: str, name: str) -> tuple[Record, ...]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name} holds no records: {error}") from error
    if not isinstance(data, dict) or data.get("version") != _VERSION or not isinstance(data.get("records"), list):
        raise ConfigError(f"{name} holds no records of version {_VERSION}, as corank tune --remember FILE writes them")
    return tuple(Record.from_json(one) for one in data["records"])
