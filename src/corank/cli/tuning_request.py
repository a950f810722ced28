"""What `corank tune` was asked to choose from, and what makes one of its trials again."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from corank.cli.outputs import Told, check_distinct, check_file, write_all
from corank.cli.sources import InputOptions, ModelOptions, Work
from corank.data.python_function import REFERENCE, own_function
from corank.errors import ConfigError
from corank.reports import write_record, write_study
from corank.tuning.space import Configuration, Space, read_space_file, written
from corank.tuning.storage import read_store
from corank.verbs.tune import Tuned
from corank.verbs.tuning_request import INT8_SPACE, OWN_SPACE, asked_space

__all__ = ["Asked", "Given", "Outputs", "asked_for", "remade", "show_trial"]

# What says how trials are chosen and kept, and nothing of what a trial makes.
_OF_STUDY = (
    *("--trials", "--tuner", "--storage", "--study", "--patience", "--record", "--report", "--remember", "--records"),
    *("--out", "--show"),
)
_FLAGS = ("--quiet", "--whole")
_SCORE = 'score = "file.py:function", name = "...", and [[choices]] with name and values'


@dataclass(frozen=True)
class Asked:
    """A space, and the user's own score where it is the user's own space."""

    space: Space
    score: Callable[[Configuration], Any] | None = None

    @property
    def suffix(self) -> str | None:
        """Of the file that a trial makes."""
        if self.score is not None:
            return None
        return ".onnx" if self.space.name == INT8_SPACE else ".safetensors"


@dataclass(frozen=True)
class Given:
    """The model and the samples that the command names."""

    model: str | None
    data: str | None
    evaluation: str | None
    network: ModelOptions
    view: InputOptions

    def read(self, asked: Asked, work: Work) -> tuple[nn.Module | None, Any, Any]:
        """Model, samples and, where they were named, samples to be scored on; nothing for a score of the user's own."""
        if asked.score is not None:
            if self.model is not None or self.data is not None:
                raise ConfigError("a space with a score of your own takes no model and no --data; leave them out")
            return None, None, None
        if self.model is None or self.data is None:
            raise ConfigError(f"corank tune MODEL --data DATA --out FILE{asked.suffix}: one of the three is missing")
        source = self.network.resolve(self.model, work.seed)
        samples, *scored = self.view.read(source, self.data, *([self.evaluation] if self.evaluation else []))
        return source.model.to(work.place), samples, scored[0] if scored else None


@dataclass(frozen=True)
class Outputs:
    """The paths of what is written, None where it was not asked for."""

    out: Path | None
    remember: Path | None
    told: Told

    @property
    def storage(self) -> str | None:
        """Where trials are kept unless the user says so."""
        return None if self.out is None else f"sqlite:///{self.out.with_suffix('.study.db')}"

    def check(self, asked: Asked, inputs: Sequence[Path | str | None]) -> None:
        """Raises ConfigError or OutputError for what cannot be written there, before the work."""
        if asked.score is not None and self.out is not None:
            raise ConfigError(f"--out {self.out}: a score of your own makes no file; leave it out")
        if asked.score is None and self.out is None:
            raise ConfigError(f"corank tune MODEL --data DATA --out FILE{asked.suffix}: one of the three is missing")
        check_distinct((self.out, self.told.record, self.told.report, self.remember), inputs)
        check_file(self.out, "--out", asked.suffix or "")
        check_file(self.remember, "--remember", ".json")
        self.told.checked()

    def write(self, tuned: Tuned, about: Mapping[str, Any]) -> list[Path]:
        """Writes all of it, the record and the page with what is said ``about`` them; returns what was written."""
        result = {**tuned.to_json(), **about}
        return write_all(
            (self.out, tuned.save),
            (self.told.record, lambda path: write_record(path, result)),
            (self.told.report, lambda path: write_study(path, result)),
        )


def asked_for(name: str, sized: bool, choices: Sequence[str]) -> Asked:
    """The space of that name or file, with other values for the ``choices`` given as ``NAME=A,B``.

    Raises:
        ConfigError: for a space, choice or score that cannot be.
    """
    found = Asked(asked_space(name, sized)) if name in (INT8_SPACE, OWN_SPACE) else _of_file(Path(name))
    space = found.space
    for text in choices:
        own, equals, values = text.partition("=")
        if not equals or not values:
            raise ConfigError(f"--choice {text}: NAME=A,B, e.g. --choice rounder=gptq,qronos")
        space = space.restricted(own, values.split(","))
    return Asked(space, found.score)


def remade(typed: str, suffix: str | None) -> Callable[[Configuration], str]:
    """From what was typed to the command that makes one configuration again."""
    words: list[str] = []
    given = iter(shlex.split(typed))
    for word in given:
        name = word.partition("=")[0]
        if name in _OF_STUDY:
            if "=" not in word:
                next(given, None)
        elif word not in _FLAGS:
            words.append(word)

    def command(configuration: Configuration) -> str:
        out = [] if suffix is None else ["--out", f"trial{suffix}"]
        return shlex.join([*words, "--configuration", written(configuration), *out])

    return command


def show_trial(storage: str | None, study: str, number: int) -> list[str]:
    """What there is to say of a trial in a storage, its command last.

    Raises:
        ConfigError: where there is none of that number.
    """
    if storage is None:
        raise ConfigError(f"--show {number} needs the storage: corank tune --show {number} --storage sqlite:///FILE.db")
    trials = {one.number: one for one in read_store(storage, study).trials()}
    if number not in trials:
        raise ConfigError(f"the study {study!r} has no trial {number}; it has {', '.join(map(str, trials)) or 'none'}")
    trial = trials[number]
    lines = [f"# trial {number}, {trial.state}, seed {trial.seed}{': ' + trial.reason if trial.reason else ''}"]
    lines += [f"# {written(trial.configuration)}"]
    for found in trial.rungs:
        size = "" if found.size_bytes is None else f", {found.size_bytes} bytes"
        noise = f" (standard error {found.error:.2f})" if found.error else ""
        lines.append(f"# score {found.score:.4g}{noise}{size}" + (f", sha256 {found.sha256}" if found.sha256 else ""))
    return [*lines, trial.command or "# still running"]


def _of_file(path: Path) -> Asked:
    if path.suffix.lower() not in (".toml", ".json"):
        raise ConfigError(f"--space {path}: corank, int8, or a .toml or .json file with {_SCORE}")
    data = read_space_file(path)
    match = REFERENCE.fullmatch(str(data.get("score", "")))
    if match is None:
        raise ConfigError(f"{path} says no score; it needs {_SCORE}")
    place = path.parent / match["path"]
    function: Any = own_function(place, match["function"], ConfigError).function
    return Asked(Space.from_json(data), function)
