"""What file names say: `{label}_{group}_{index}` read from them, and samples chosen by it.

A name is taken apart from left to right, each part ending where the text behind it first stands: no backtracking.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from corank.errors import ConfigError, DataError

__all__ = ["NamePattern", "chosen_by", "is_condition"]

EXAMPLE = '--label "{label}_{group}_{index}"'
FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,31})\}")
CONDITION = re.compile(r"\s*([A-Za-z_]\w*)\s*(!=|<=|>=|==|=|<|>)\s*(.+?)\s*", re.ASCII)
COMPARED: Mapping[str, Callable[[float, float], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


@dataclass(frozen=True)
class NamePattern:
    """A pattern of file names, such as `{label}_{group}_{index}` or `{group}/{label}/{index}`.

    Args:
        text: names in braces, of which one is `label`, with text between any two of them. It is read against the name
            without its ending; each `/` takes one folder more into the name.

    Raises:
        ConfigError: no `{label}`, a name twice, or two names side by side.
    """

    text: str

    def __post_init__(self) -> None:
        names, between = self.fields, self._between
        if "label" not in names or len(set(names)) < len(names) or "" in between[1:-1]:
            raise ConfigError(
                f"the pattern {self.text!r}: names in braces, one of them {{label}}, each once and with text between "
                f"them, e.g. {EXAMPLE}"
            )
        if any("{" in part or "}" in part for part in between):
            raise ConfigError(f"the pattern {self.text!r}: a name in braces is of letters and digits, e.g. {EXAMPLE}")

    @property
    def fields(self) -> tuple[str, ...]:
        """The names in braces."""
        return tuple(FIELD.findall(self.text))

    @property
    def _between(self) -> list[str]:
        return FIELD.split(self.text)[::2]

    def __call__(self, path: str) -> dict[str, str]:
        """What the name of a file says.

        Raises:
            DataError: it is not of this pattern.
        """
        parts = PurePosixPath(path).with_suffix("").parts
        rest = "/".join(parts[-1 - self.text.count("/") :])
        first, *others = self._between
        found: dict[str, str] = {}
        fits, rest = rest.startswith(first), rest[len(first) :]
        for place, (name, text) in enumerate(zip(self.fields, others, strict=True)):
            if place < len(others) - 1:
                value, there, rest = rest.partition(text)
                fits = fits and bool(there)
            else:
                fits, value = fits and rest.endswith(text), rest[: len(rest) - len(text)]
            fits = fits and bool(value) and "/" not in value
            found[name] = value
        if not fits:
            raise DataError(f"the name {path!r} is not of the pattern {self.text!r}; rename or remove it, or give "
                            f"another pattern, e.g. {EXAMPLE}")  # fmt: skip
        return found


def is_condition(text: str) -> bool:
    """Whether what stands in brackets behind a reference chooses by names, and is no slice."""
    return any(mark in text for mark in "=<>")


def chosen_by(text: str, parts: Mapping[str, Sequence[str]]) -> NDArray[np.int64]:
    """The positions that fulfil a condition such as `group!=theo`, `index<5` or `group=theo|lucas&index>=5`.

    Args:
        text: conditions, all of which hold where `&` joins them; with or without brackets. `=` and `!=` take several
            values with `|` between them; `<`, `<=`, `>` and `>=` compare numbers.
        parts: what the names say, of each sample.

    Raises:
        DataError: no condition, a part that names do not have, values that are no numbers, or none fulfils it.
    """
    whole = text.strip().removeprefix("[").removesuffix("]")
    count = len(next(iter(parts.values()), ()))
    holds = np.ones(count, bool)
    for one in whole.split("&"):
        match = CONDITION.fullmatch(one)
        if match is None or match[1] not in parts:
            known = ", ".join(parts) or "nothing"
            raise DataError(f"{text!r}: give NAME=VALUE, NAME!=VALUE or NAME<NUMBER, where file names say {known}, "
                            "e.g. [group!=theo] or [index<5]")  # fmt: skip
        holds &= _fulfilled(parts[match[1]], match[2], match[3], text)
    chosen = np.flatnonzero(holds).astype(np.int64)
    if len(chosen) == 0:
        raise DataError(f"none of the {count} samples is {whole}")
    return chosen


def _fulfilled(values: Sequence[str], sign: str, wanted: str, text: str) -> NDArray[np.bool_]:
    if sign in COMPARED:
        try:
            return np.array([COMPARED[sign](float(value), float(wanted)) for value in values], bool)
        except ValueError:
            raise DataError(f"{text!r} compares numbers, and names have others there; give NAME=VALUE") from None
    among = set(wanted.split("|"))
    return np.array([(value in among) is (sign != "!=") for value in values], bool)
