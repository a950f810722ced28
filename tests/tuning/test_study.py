"""Studies: kept, resumed to the same best, shared by processes, and not stopped by a trial that fails."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna")

from corank.errors import BudgetError, ConfigError
from corank.progress import silent
from corank.tuning import Choice, Configuration, Goal, Measurement, Space, Trial
from corank.tuning.space import key_of
from corank.tuning.storage import Store, read_store
from corank.tuning.study import StudyPlan, chosen_trial, run_study
from corank.tuning.trial import COMPLETE, FAILED, PRUNED, Measure
from corank.tuning.tuners import Genetic, RandomDraws, Task, Tuner

SPACE = Space("toy", (Choice("a", tuple(range(6))), Choice("b", ("x", "y")), Choice("c", (1, 2), when={"b": ("y",)})))
IDENTITY = {"space": SPACE.to_json(), "seed": 0}


def measured(one: Configuration, share: float) -> Measurement:
    return Measurement(
        50.0 + float(one["a"] or 0) + (0.5 if one["b"] == "y" else 0.0), size_bytes=100 + int(one["a"] or 0)
    )


def plan_of(trials: int, tuner: Tuner | None = None, goal: Goal | None = None) -> StudyPlan:
    return StudyPlan(
        Task(SPACE), tuner or RandomDraws(), goal or Goal(), trials, (1.0,), None, 0, lambda one: f"make {key_of(one)}"
    )


def run(store: Store, plan: StudyPlan, measure: Measure = measured) -> list[Trial]:
    return run_study(store, measure, plan, silent)


def told(trials: list[Trial]) -> list[tuple[str, str]]:
    return [(one.state, key_of(one.configuration)) for one in trials]


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'study.db'}"


def test_every_trial_is_recorded_with_seed_and_command() -> None:
    seen: list[tuple[str, int, int]] = []
    trials = run_study(Store(None, "s", IDENTITY), measured, plan_of(5), lambda *one: seen.append(one))
    assert [one.number for one in trials] == list(range(5)) and all(one.state == COMPLETE for one in trials)
    assert all(one.command == f"make {key_of(one.configuration)}" and one.seed == 0 for one in trials)
    best = max((one.measurement.score for one in trials if one.measurement), default=0.0)
    assert seen[0] == ("tuning", 0, 5) and seen[-1][1:] == (5, 5) and f"best {best:.2f} in" in seen[-1][0]


def test_all_of_the_space_is_enough() -> None:
    assert len(run(Store(None, "s", IDENTITY), plan_of(1000))) == len(list(SPACE))


def test_killed_in_a_trial_and_resumed_is_as_if_never_stopped(tmp_path: Path) -> None:
    tuner = Genetic(population=3)
    whole = run(Store(None, "s", IDENTITY), plan_of(8, tuner))

    def stopping(at: int, error: type[BaseException]) -> Callable[[Configuration, float], Measurement]:
        calls: list[int] = []

        def measure(one: Configuration, share: float) -> Measurement:
            calls.append(1)
            if len(calls) == at:
                raise error
            return measured(one, share)

        return measure

    with pytest.raises(KeyboardInterrupt):
        run(Store(url_of(tmp_path), "s", IDENTITY), plan_of(8, tuner), stopping(3, KeyboardInterrupt))
    with pytest.raises(SystemExit):
        run(Store(url_of(tmp_path), "s", IDENTITY), plan_of(8, tuner), stopping(2, SystemExit))
    resumed = run(Store(url_of(tmp_path), "s", IDENTITY), plan_of(8, tuner))
    assert told(resumed) == told(whole)
    assert told(run(Store(url_of(tmp_path), "s", IDENTITY), plan_of(8, tuner))) == told(whole), "nothing is left to do"


KILLED = """
import os, sys
from corank.tuning.storage import Store
from test_study import IDENTITY, plan_of, run
run(Store({url!r}, "s", IDENTITY), plan_of(6), lambda *_: os._exit(9))
"""

TWO = """
import time
from corank.tuning.storage import Store
from test_study import IDENTITY, measured, plan_of, run
def slow(one, share):
    time.sleep(0.05)
    return measured(one, share)
run(Store({url!r}, "s", IDENTITY), plan_of(6), slow)
"""


def started(code: str) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths})


def test_a_trial_of_a_process_that_is_gone_is_taken_up(tmp_path: Path) -> None:
    assert started(KILLED.format(url=url_of(tmp_path))).wait() == 9
    left = read_store(url_of(tmp_path), "s").trials()
    assert [one.state for one in left] == ["running"]
    resumed = run(Store(url_of(tmp_path), "s", IDENTITY), plan_of(6))
    assert told(resumed) == told(run(Store(None, "s", IDENTITY), plan_of(6)))


def test_two_processes_share_a_storage(tmp_path: Path) -> None:
    Store(url_of(tmp_path), "s", IDENTITY)
    processes = [started(TWO.format(url=url_of(tmp_path))) for _ in range(2)]
    assert [one.wait() for one in processes] == [0, 0]
    trials = read_store(url_of(tmp_path), "s").trials()
    assert len(trials) == 6 and len({key_of(one.configuration) for one in trials}) == 6
    assert {one.state for one in trials} == {COMPLETE}


def test_what_another_machine_runs_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(url_of(tmp_path), "s", IDENTITY)
    monkeypatch.setattr("platform.node", lambda: "elsewhere")
    assert store.begin(SPACE, {"a": 5, "b": "x"}, 9) is not None
    monkeypatch.undo()
    trials = run(Store(url_of(tmp_path), "s", IDENTITY), plan_of(4))
    assert [one.state for one in trials] == ["running", *[COMPLETE] * 3]
    assert {"a": 5, "b": "x"} not in [one.configuration for one in trials[1:]]


def test_a_trial_that_raises_or_is_no_number_is_recorded_and_passed_over() -> None:
    def measure(one: Configuration, share: float) -> Measurement:
        if one["a"] == 1:
            raise ValueError("no luck")
        return Measurement(float("nan")) if one["a"] == 2 else measured(one, share)

    trials = run(Store(None, "s", IDENTITY), plan_of(100), measure)
    assert len(trials) == len(list(SPACE))
    failed = {str(one.configuration["a"]): one.reason for one in trials if one.state == FAILED}
    assert failed == {"1": "ValueError: no luck", "2": "ConfigError: the score is nan, not a number"}
    assert chosen_trial(trials, Goal()).configuration["a"] == 5


def test_cheap_looks_leave_what_is_not_promising() -> None:
    looked: list[float] = []

    def measure(one: Configuration, share: float) -> Measurement:
        looked.append(share)
        return measured(one, share)

    trials = run(Store(None, "s", IDENTITY), replace(plan_of(18), rungs=(0.25, 1.0)), measure)
    assert {one.state for one in trials} == {COMPLETE, PRUNED}
    assert looked.count(0.25) == 18 and looked.count(1.0) == sum(one.state == COMPLETE for one in trials) < 12
    assert (
        max(one.measurement.score for one in trials if one.measurement) == chosen_trial(trials, Goal()).rungs[-1].score
    )


def test_no_configuration_within_the_size_names_the_smallest() -> None:
    trials = run(Store(None, "s", IDENTITY), plan_of(100))
    with pytest.raises(
        BudgetError, match=r"within 50 bytes; the smallest, trial \d+ \(a=0,.*, has 50.\d0 in 100 bytes"
    ):
        chosen_trial(trials, Goal(size=50))
    with pytest.raises(BudgetError, match=r"scores 99; the best, trial \d+ \(a=5,b=y,.*, has 55.50"):
        chosen_trial(trials, Goal(least=99.0))
    with pytest.raises(ConfigError, match="none of 0 trials"):
        chosen_trial([], Goal())


def test_a_storage_of_another_study_or_version_is_refused(tmp_path: Path) -> None:
    import optuna

    url = url_of(tmp_path)
    run(Store(url, "s", IDENTITY), plan_of(1))
    with pytest.raises(ConfigError, match="its seed is 0, and now 1"):
        Store(url, "s", {**IDENTITY, "seed": 1})
    with pytest.raises(ConfigError, match="no study 'other'"):
        read_store(url, "other")
    optuna.create_study(storage=url, study_name="foreign").add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(ConfigError, match="another program's"):
        Store(url, "foreign", IDENTITY)
    optuna.load_study(storage=url, study_name="s").set_user_attr("corank", {**IDENTITY, "format": 99})
    with pytest.raises(ConfigError, match="format 99"):
        Store(url, "s", IDENTITY)
    with sqlite3.connect(tmp_path / "study.db") as database:
        database.execute("drop table studies")
    with pytest.raises(ConfigError, match="can be read"):
        Store(url, "s", IDENTITY)
    (tmp_path / "text.db").write_text("no database, but a text that is long enough to be looked at " * 40)
    with pytest.raises(ConfigError, match="can be read"):
        Store(f"sqlite:///{tmp_path / 'text.db'}", "s", IDENTITY)
    with pytest.raises(ConfigError, match="folder that exists"):
        Store(f"sqlite:///{tmp_path / 'missing' / 'study.db'}", "s", IDENTITY)


def test_a_storage_that_several_make_at_once(tmp_path: Path) -> None:
    """Each finds the tables missing and makes them; who comes too late takes those of the other."""
    together = threading.Barrier(3)

    def opened(_: int) -> dict[str, Any]:
        together.wait()
        return Store(url_of(tmp_path), "s", IDENTITY).identity

    with ThreadPoolExecutor(3) as pool:
        assert len({json.dumps(one) for one in pool.map(opened, range(3))}) == 1


def test_what_is_to_be_first_comes_before_what_the_tuner_proposes() -> None:
    first = ({"a": 5, "b": "y", "c": 2}, {"a": 0, "b": "x"})
    trials = run(Store(None, "s", IDENTITY), replace(plan_of(3), first=first))
    assert [one.configuration for one in trials[:2]] == list(first) and len(
        {key_of(one.configuration) for one in trials}
    ) == 3
