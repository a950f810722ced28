"""Trials in a storage of optuna's: resumable, and several processes at once on one.

No clock is compared: what a process of this machine left behind is known by its number, and what another machine has
begun is left to it.
"""

from __future__ import annotations

import os
import platform
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from corank.errors import ConfigError
from corank.tuning.optional import optuna
from corank.tuning.space import Configuration, Space, key_of
from corank.tuning.trial import COMPLETE, FAILED, PRUNED, RUNNING, Measurement, Trial

__all__ = ["Begun", "Store", "read_store"]

FORMAT = 1
_PAUSES = (0.1, 0.2, 0.4, 0.8)  # seconds; tables of a storage are made in less
_IDENTITY = "corank"
_CONFIGURATION, _OWNER, _RUNGS, _REPORT = "configuration", "owner", "rungs", "report"


@dataclass
class Begun:
    """A trial that this process measures."""

    handle: Any
    number: int
    configuration: Configuration
    rungs: list[Measurement]


class Store:
    """One study.

    Args:
        url: such as "sqlite:///study.db"; None keeps it in memory.
        name: of the study in the storage.
        identity: what tells it from others, plain; None takes the one that is there.
    """

    def __init__(self, url: str | None, name: str, identity: Mapping[str, Any] | None) -> None:
        package = optuna()
        self._states = package.trial.TrialState
        self._create, self._handle = package.trial.create_trial, package.trial.Trial
        self._categorical = package.distributions.CategoricalDistribution
        try:
            self._study = _opened(package, url, name, identity is not None)
            self._study.sampler = package.samplers.RandomSampler()  # never asked
            known = self._study.user_attrs.get(_IDENTITY)
            if known is None and identity is not None and not self._study.trials:
                self._study.set_user_attr(_IDENTITY, {"format": FORMAT, **identity})
                known = self._study.user_attrs[_IDENTITY]
        except Exception as error:  # of sqlite, of SQLAlchemy and of optuna, which share no base
            said = [*str(error).strip().splitlines(), type(error).__name__][0]
            raise ConfigError(
                f"the storage {url} has no study {name!r} that can be read: {said}; give sqlite:///FILE.db, in a "
                "folder that exists"
            ) from error
        _check(known, identity, f"the study {name!r} in {url}")
        self.identity: dict[str, Any] = dict(known or {})

    def trials(self) -> list[Trial]:
        """All trials that count, in order: those given up and taken up again, or begun twice, do not."""
        found = self._study.get_trials(deepcopy=False)
        return [_trial(one, self._states) for one in found if self._counts(one)]

    def begin(self, space: Space, configuration: Configuration, most: int) -> Begun | None:
        """Begins a trial; or None, where another process was quicker, or there are ``most`` trials already.

        Args:
            space: of the configuration.
            configuration: what to measure.
            most: trials of the study.
        """
        token = secrets.token_hex(8)
        kinds = {choice.name: self._categorical(list(choice.values)) for choice in space.choices}
        # Made whole in one write, running already: what waits in optuna's own queue two processes may take at once.
        self._study.add_trial(
            self._create(
                state=self._states.RUNNING,
                params=dict(configuration),
                distributions={name: kinds[name] for name in configuration},
                user_attrs={_CONFIGURATION: dict(configuration), _OWNER: {**_owner(), "token": token}},
            )
        )
        every = self._study.get_trials(deepcopy=False)
        own = next(one for one in every if one.user_attrs.get(_OWNER, {}).get("token") == token)
        before = [one for one in every if one.number < own.number and self._counts(one)]
        if len(before) >= most or key_of(configuration) in {key_of(one.user_attrs[_CONFIGURATION]) for one in before}:
            self._study.tell(own.number, state=self._states.FAIL)
            return None
        return Begun(self._handle(self._study, own._trial_id), own.number, configuration, [])

    def add_rung(self, begun: Begun, found: Measurement) -> None:
        """Keeps what was measured on a share of the data."""
        begun.rungs.append(found)
        begun.handle.set_user_attr(_RUNGS, [asdict(one) for one in begun.rungs])
        begun.handle.report(found.score, len(begun.rungs))

    def end(self, begun: Begun, state: str, report: Mapping[str, Any]) -> None:
        """Ends a trial; ``report`` holds seconds, seed, command and reason."""
        begun.handle.set_user_attr(_REPORT, dict(report))
        if state == COMPLETE:
            self._study.tell(begun.number, begun.rungs[-1].score)
        else:
            self._study.tell(begun.number, state=self._states.PRUNED if state == PRUNED else self._states.FAIL)

    def give_up(self, begun: Begun) -> None:
        """Leaves a trial to whoever comes next."""
        self._abandon(begun.number)

    def left_over(self) -> Configuration | None:
        """A configuration that was begun and given up, by an interrupt or because its process of this machine is gone,
        and that nobody has begun since."""
        for one in self._study.get_trials(deepcopy=False, states=(self._states.RUNNING,)):
            owner = one.user_attrs.get(_OWNER)
            if owner is not None and owner["host"] == platform.node() and not _is_alive(owner["process"]):
                self._abandon(one.number)
        every = self._study.get_trials(deepcopy=False)
        begun = {key_of(one.user_attrs[_CONFIGURATION]) for one in every if self._counts(one)}
        given = (one.user_attrs.get(_CONFIGURATION) for one in every if not self._counts(one))
        return next((one for one in given if one is not None and key_of(one) not in begun), None)

    def _abandon(self, number: int) -> None:
        with suppress(ValueError):  # another process did the same just now
            self._study.tell(number, state=self._states.FAIL)

    def _counts(self, one: Any) -> bool:
        # What failed without a report was given up, or begun twice.
        ended = one.state != self._states.FAIL or _REPORT in one.user_attrs
        return _CONFIGURATION in one.user_attrs and ended


def read_store(url: str, name: str) -> Store:
    """A study that is there, whatever it is of.

    Raises:
        ConfigError: for a storage without it, or of another version.
    """
    return Store(url, name, None)


def _opened(package: Any, url: str | None, name: str, make: bool) -> Any:
    """The study; tried again for a while where a file is there that another process may be making just now."""
    for pause in (*_PAUSES, None):
        try:
            storage = _storage(package, url)
            if not make:
                return package.load_study(study_name=name, storage=storage)
            return package.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        except Exception:  # of sqlite, of SQLAlchemy and of optuna, which share no base
            if pause is None or url is None or not make or not Path(url.partition(":///")[2]).is_file():
                raise
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _storage(package: Any, url: str | None) -> Any:
    if url is None or not url.startswith("sqlite"):
        return url
    # A process that waits for another one's write is no error.
    return package.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})


def _check(known: Any, identity: Mapping[str, Any] | None, place: str) -> None:
    if not isinstance(known, dict) or known.get("format") != FORMAT:
        said = f"format {known.get('format')}" if isinstance(known, dict) else "another program's"
        raise ConfigError(
            f"{place} is {said}, and this corank reads its own of format {FORMAT}; give another --storage"
        )
    for name, value in (identity or {}).items():
        if known.get(name) != value:
            raise ConfigError(
                f"{place} is another one: its {name} is {_short(known.get(name))}, and now {_short(value)}; give the "
                "same call to go on with it, or another storage or study name"
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _trial(one: Any, states: Any) -> Trial:
    names = {states.COMPLETE: COMPLETE, states.PRUNED: PRUNED, states.FAIL: FAILED}
    rungs: Sequence[Mapping[str, Any]] = one.user_attrs.get(_RUNGS, [])
    found = tuple(Measurement(**rung) for rung in rungs)
    report = one.user_attrs.get(_REPORT, {})
    return Trial(one.number, names.get(one.state, RUNNING), one.user_attrs[_CONFIGURATION], found, **report)


def _owner() -> dict[str, Any]:
    return {"host": platform.node(), "process": os.getpid()}


def _is_alive(process: int) -> bool:
    with suppress(OSError):
        os.kill(process, 0)
        return True
    return False
