"""What may be chosen: names, values and conditions, as plain data."""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from corank.errors import ConfigError
from corank.files import read_at_most

__all__ = ["Choice", "Configuration", "Space", "Value", "key_of", "read_space_file", "written"]

Value = str | int | float | bool | None
Configuration = Mapping[str, Value]
"""A value for every choice whose condition holds, in the order of the space."""

_LARGEST_BYTES = 1_000_000  # of a space's file
_EXAMPLE = 'Choice("bits", (2, 3, 4)) or Choice("group", (0, 64), when={"codec": ("uniform",)})'


@dataclass(frozen=True)
class Choice:
    """One setting.

    Args:
        name: of the setting.
        values: it may take: texts, numbers, truths, None.
        when: names of earlier choices, with the values of theirs for which this one is made; all must hold.
    """

    name: str
    values: Sequence[Value]
    when: Mapping[str, Sequence[Value]] | None = None

    def __post_init__(self) -> None:
        values = self.values
        if not isinstance(self.name, str) or not self.name or "=" in self.name or "," in self.name:
            raise ConfigError(f"a choice is called {self.name!r}: a name without '=' and ',', e.g. {_EXAMPLE}")
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ConfigError(f"choice {self.name!r}: values={values!r}: one or more, e.g. {_EXAMPLE}")
        if not all(value is None or isinstance(value, (str, int, float)) for value in values):
            raise ConfigError(f"choice {self.name!r}: values are texts, numbers, truths or None, not {values!r:.80}")
        if len({json.dumps(value) for value in values}) < len(values):
            raise ConfigError(f"choice {self.name!r} has a value twice: {values!r:.80}")

    def holds(self, chosen: Configuration) -> bool:
        """Whether it is made, after what was chosen before it."""
        return all(name in chosen and chosen[name] in allowed for name, allowed in (self.when or {}).items())


@dataclass(frozen=True)
class Space:
    """All configurations of some choices.

    Args:
        name: of the space; records of another name are of no use to a tuner.
        choices: in order; conditions look back only.
    """

    name: str
    choices: Sequence[Choice]

    def __post_init__(self) -> None:
        names: list[str] = []
        for choice in self.choices:
            missing = sorted(set(choice.when or {}) - set(names))
            if choice.name in names:
                raise ConfigError(f"space {self.name!r} has the choice {choice.name!r} twice")
            if missing:
                raise ConfigError(
                    f"space {self.name!r}: {choice.name!r} is made when {missing[0]!r} has some value, which is no "
                    "earlier choice; put that one before it"
                )
            names.append(choice.name)
        if not names:
            raise ConfigError(f"space {self.name!r} has no choices; give some, e.g. {_EXAMPLE}")

    def __iter__(self) -> Iterator[Configuration]:
        """Every configuration once, the last choice changing fastest."""
        return self._from(0, {})

    def _from(self, place: int, chosen: dict[str, Value]) -> Iterator[Configuration]:
        if place == len(self.choices):
            yield dict(chosen)
            return
        choice = self.choices[place]
        if not choice.holds(chosen):
            yield from self._from(place + 1, chosen)
            return
        for value in choice.values:
            yield from self._from(place + 1, {**chosen, choice.name: value})

    def first(self, most: int) -> list[Configuration]:
        """The first configurations, at most so many."""
        return list(itertools.islice(self, most))

    def draw(self, random: Random) -> Configuration:
        """A configuration, every value of a choice as likely as the others."""
        return self.completed({}, random)

    def completed(self, chosen: Configuration, random: Random) -> Configuration:
        """What was chosen, as far as conditions hold, with the rest drawn."""
        found: dict[str, Value] = {}
        for choice in self.choices:
            if choice.holds(found):
                own = chosen.get(choice.name, ...)
                found[choice.name] = own if own in choice.values else random.choice(list(choice.values))  # pyright: ignore[reportArgumentType]
        return found

    def checked(self, given: Mapping[str, Any]) -> Configuration:
        """The configuration in the order of the space.

        Raises:
            ConfigError: for a choice that is missing, unknown or not made, or a value that it does not have.
        """
        found: dict[str, Value] = {}
        for choice in self.choices:
            if not choice.holds(found):
                continue
            if choice.name not in given or given[choice.name] not in choice.values:
                said = repr(given[choice.name]) if choice.name in given else "nothing"
                allowed = ", ".join(map(_text, choice.values))
                raise ConfigError(f"{choice.name!r} is {said} in the configuration; one of {allowed}")
            found[choice.name] = given[choice.name]
        unknown = sorted(set(given) - set(found))
        if unknown:
            raise ConfigError(f"{unknown[0]!r} is no choice here; they are {', '.join(found)}")
        return found

    def read(self, text: str) -> Configuration:
        """A configuration from ``name=value,name=value``, as :meth:`written` gives it.

        Raises:
            ConfigError: for what the space does not have.
        """
        given: dict[str, Any] = {}
        for part in text.split(","):
            name, equals, value = part.strip().partition("=")
            if not equals:
                raise ConfigError(f"{part!r} in {text!r:.200}: write NAME=VALUE,NAME=VALUE")
            given[name] = self._value(name, value)
        return self.checked(given)

    def restricted(self, name: str, values: Sequence[str]) -> Space:
        """The same with other values for a choice, given as texts: those that it has, or numbers beside numbers.

        Raises:
            ConfigError: when there is no such choice.
        """
        known = [choice.name for choice in self.choices]
        if name not in known:
            raise ConfigError(f"{name!r} is no choice of {self.name!r}; they are {', '.join(known)}")
        chosen = tuple(self._value(name, value) for value in values)
        return replace(self, choices=tuple(
            replace(choice, values=chosen) if choice.name == name else choice for choice in self.choices
        ))  # fmt: skip

    def _value(self, name: str, text: str) -> Value:
        for choice in self.choices:
            if choice.name == name:
                own = [value for value in choice.values if _text(value) == text]
                return own[0] if own else _parsed(text)
        return text

    def to_json(self) -> dict[str, Any]:
        """Plain data; the same as a file of a space holds."""
        return {"name": self.name, "choices": [_plain(choice) for choice in self.choices]}

    @classmethod
    def from_json(cls, data: Any) -> Space:
        """The inverse of :meth:`to_json`.

        Raises:
            ConfigError: for data of another form.
        """
        try:
            choices = tuple(
                Choice(one["name"], _listed(one["values"]), _when(one.get("when"))) for one in data["choices"]
            )
            return cls(str(data["name"]), choices)
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"no space: {type(error).__name__}: {error}; a name, and choices, each with a name and values"
            ) from error

    @classmethod
    def load(cls, path: str | Path) -> Space:
        """From a .toml or .json file; other entries than ``name`` and ``choices`` are left to the reader.

        Raises:
            ConfigError: for a file that cannot be read or says something else.
        """
        return cls.from_json(read_space_file(Path(path)))


def read_space_file(path: Path) -> dict[str, Any]:
    """The entries of a .toml or .json file; "none" of a .toml file is None.

    Raises:
        ConfigError: for a file that cannot be read.
    """
    try:
        text = read_at_most(path, _LARGEST_BYTES).decode()
        found = json.loads(text) if path.suffix.lower() == ".json" else _with_none(tomllib.loads(text))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot read the space {str(path)!r}: {error}; a .toml or .json file") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds no space: a name, and choices")
    return found


def key_of(configuration: Configuration) -> str:
    """A text that is the same for equal configurations alone."""
    return json.dumps(dict(sorted(configuration.items())))


def written(configuration: Configuration) -> str:
    """``name=value,name=value``, for a person and :meth:`Space.read`."""
    return ",".join(f"{name}={_text(value)}" for name, value in configuration.items())


def _text(value: Value) -> str:
    return (
        {None: "none", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else f"{value}"
    )


def _parsed(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    named: dict[str, Value] = {"none": None, "true": True, "false": False}
    return named.get(text, text)


def _plain(choice: Choice) -> dict[str, Any]:
    when = {} if choice.when is None else {"when": {name: list(values) for name, values in choice.when.items()}}
    return {"name": choice.name, "values": [*choice.values], **when}


def _listed(values: Any) -> tuple[Value, ...]:
    return tuple(values) if isinstance(values, list) else values


def _with_none(found: Any) -> Any:
    """The same with None for every text "none", which TOML has no word for."""
    if isinstance(found, dict):
        return {name: _with_none(value) for name, value in found.items()}
    if isinstance(found, list):
        return [_with_none(value) for value in found]
    return None if found == "none" else found


def _when(data: Any) -> Mapping[str, Sequence[Value]] | None:
    return None if data is None else {str(name): _listed(values) for name, values in data.items()}
