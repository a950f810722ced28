"""Every tuner: nothing twice, everything in the end, the same proposals from the same knowledge; and the trees."""

from __future__ import annotations

import importlib.util
from random import Random

import numpy as np
import pytest

from corank.calibration.seeds import seed_of
from corank.errors import ConfigError
from corank.tuning import Choice, Configuration, Space
from corank.tuning.records import Record
from corank.tuning.space import key_of
from corank.tuning.trees import fitted_trees
from corank.tuning.tuners import TUNERS, BoostedTrees, Genetic, Grid, Known, RandomDraws, Recorded, Task, Tpe, Tuner
from corank.tuning.tuners.boosted import features

SPACE = Space(
    "toy",
    (
        Choice("a", (0, 1, 2, 3)),
        Choice("b", ("x", "y", "z")),
        Choice("c", (None, True), when={"b": ("x",)}),
    ),
)


def score(one: Configuration, shift: float = 0.0) -> float:
    return 90.0 - 3.0 * abs(float(one["a"] or 0) - 2) - {"x": 0.0, "y": 4.0, "z": 8.0}[str(one["b"])] + shift


def record(shift: float) -> Record:
    return Record("toy", f"other {shift}", {"layers": shift}, 91.0 + shift, 100,
                  tuple((one, score(one, shift)) for one in SPACE))  # fmt: skip


def searched(tuner: Tuner, seed: int, records: tuple[Record, ...] = (), most: int = 100) -> list[Known]:
    task, known = Task(SPACE, {"layers": 0.0}, 91.0, records), list[Known]()
    while len(known) < most:
        found = tuner.propose(task, known, Random(seed_of(seed, len(known))))
        if found is None:
            break
        known.append(Known(found, score(found)))
    return known


def trials_to_best(tuner: Tuner, seed: int, records: tuple[Record, ...] = ()) -> int:
    scores = [one.utility or 0.0 for one in searched(tuner, seed, records)]
    return 1 + scores.index(max(scores))


@pytest.mark.parametrize("name", TUNERS)
def test_all_of_the_space_once_so_that_the_best_is_the_exhaustive_one(name: str) -> None:
    if name == "tpe":
        pytest.importorskip("optuna")
    tuner = TUNERS[name]()
    known = searched(tuner, 0)
    assert len(known) == len(list(SPACE)) == len({key_of(one.configuration) for one in known})
    assert max(one.utility or 0.0 for one in known) == max(map(score, SPACE))
    again = searched(tuner, 0, most=6)
    assert [one.configuration for one in again] == [one.configuration for one in known[:6]]


@pytest.mark.parametrize(
    "tuner", [RandomDraws(), Grid(), Genetic(population=3), BoostedTrees(startup=2), Tpe(startup=2), Recorded()]
)
def test_what_runs_or_failed_is_not_proposed_again(tuner: Tuner) -> None:
    if isinstance(tuner, Tpe):
        pytest.importorskip("optuna")
    every = list(SPACE)
    known = [Known(one, None if place % 2 else score(one)) for place, one in enumerate(every[:-1])]
    assert tuner.propose(Task(SPACE), known, Random(0)) == every[-1]
    assert tuner.propose(Task(SPACE), [*known, Known(every[-1], None)], Random(0)) is None


def test_trees_need_fewer_trials_than_random_and_with_records_the_first_is_best() -> None:
    seeds = range(12)
    random = np.mean([trials_to_best(RandomDraws(), seed) for seed in seeds])
    cold = np.mean([trials_to_best(BoostedTrees(), seed) for seed in seeds])
    assert cold < random
    assert all(trials_to_best(BoostedTrees(), seed, (record(-2.0), record(3.0))) == 1 for seed in seeds[:3])


def test_with_records_the_first_is_what_they_rank_best() -> None:
    assert all(trials_to_best(Recorded(), seed, (record(-2.0), record(3.0))) == 1 for seed in range(3))
    other = Record(
        "toy", "other", {}, 90.0, 100, tuple((one, score({**one, "b": _FLIPPED[str(one["b"])]})) for one in SPACE)
    )
    found = searched(Recorded(), 0, (other,))
    assert found[0].configuration["b"] == "z"  # though it is the worst here
    assert searched(Recorded(), 5) == searched(RandomDraws(), 5)  # without records


_FLIPPED = {"x": "z", "y": "y", "z": "x"}


def test_recorded_is_the_mean_of_a_gaussian_process() -> None:
    """Against the dense formula with an inverse, ranks by sorting."""
    tuner, every = Recorded(likeness=0.4, noise=0.2, deviation=0.0), list(SPACE)
    tried = [Known(every[place], utility) for place, utility in ((0, 80.0), (5, 90.0), (9, 85.0))]
    scores = [value for _, value in record(0.0).trials]
    ranks = np.array([(sum(a < b for a in scores) + sum(a <= b for a in scores)) / 2 / len(scores) for b in scores])
    prior = (ranks - ranks.mean()) / ranks.std()
    alike = np.array([[0.4 ** sum(one.get(k, "") != two.get(k, "") for k in "abc") for two in every] for one in every])
    at, own = [0, 5, 9], np.array([80.0, 90.0, 85.0])
    spread = (np.quantile(scores, 0.84) - np.quantile(scores, 0.16)) / 2
    surprise = (own - own.mean()) / spread - (prior[at] - prior[at].mean())
    mean = prior + alike[:, at] @ np.linalg.inv(alike[np.ix_(at, at)] + 0.2 * np.eye(3)) @ surprise
    mean[at] = -np.inf
    assert tuner.propose(Task(SPACE, records=(record(0.0),)), tried, Random(0)) == every[int(mean.argmax())]
    with pytest.raises(ConfigError, match="likeness above 0 and below 1"):
        Recorded(likeness=1.0)


def test_genetic_search_crosses_the_best() -> None:
    known = [Known({"a": 1, "b": "y"}, 3.0), Known({"a": 2, "b": "z"}, 2.0), Known({"a": 3, "b": "y"}, 1.0)]
    worse = [Known({"a": 0, "b": "x", "c": None}, 0.0)]
    children = [
        Genetic(population=3, mutation=0.0).propose(Task(SPACE), known + worse, Random(seed)) for seed in range(20)
    ]
    # Of two parents drawn the worst is never the better one.
    assert {key_of(child or {}) for child in children} == {key_of({"a": 1, "b": "z"}), key_of({"a": 2, "b": "y"})}
    assert Genetic(population=5).propose(Task(SPACE), known + worse, Random(0)) is not None


def test_features_tell_configurations_apart() -> None:
    rows = [features(SPACE, one, {"layers": 3.0}, ["layers", "bias"]) for one in SPACE]
    assert len({row.tobytes() for row in rows}) == len(rows)
    assert all(row[-2:].tolist() == [3.0, 0.0] for row in rows)


@pytest.mark.parametrize("package", ["xgboost", "sklearn"])
def test_trees_of_either_package_fit_and_repeat(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(package)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: real(name, *more) if name == package else None)
    rows = np.arange(40, dtype=np.float64)[:, None]
    targets = (rows[:, 0] > 20).astype(np.float64)
    predict = fitted_trees(rows, targets, np.ones(40), 3)
    found = predict(rows)
    assert np.abs(found - targets).mean() < 0.1
    assert np.array_equal(found, fitted_trees(rows, targets, np.ones(40), 3)(rows))
