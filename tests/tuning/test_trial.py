"""Which of several trials is best, and when a trial or a study is left."""

from __future__ import annotations

import pytest

from corank.errors import ConfigError
from corank.tuning import Choice, Goal, Measurement, Space, Trial
from corank.tuning.halving import is_promising, is_settled
from corank.tuning.importance import importance
from corank.tuning.trial import COMPLETE, FAILED, best_of, front_of


def trial(
    number: int, score: float, size: int | None = None, latency: float | None = None, error: float = 0.0
) -> Trial:
    return Trial(number, COMPLETE, {"a": number % 2}, (Measurement(score, error, size, latency),))


def number_of(found: Trial | None) -> int | None:
    return None if found is None else found.number


def test_the_best_score_and_of_equals_the_cheapest() -> None:
    trials = [trial(0, 80.0, 100), trial(1, 81.0, 90), trial(2, 81.0, 80, 2.0), trial(3, 81.0, 80, 1.0)]
    assert number_of(best_of(trials, Goal())) == 3
    assert number_of(best_of([*trials, trial(4, 81.0, 80, 1.0)], Goal())) == 3, "of equal ones the first"
    assert number_of(best_of([Trial(0, FAILED, {})], Goal())) is None


def test_within_a_size_and_the_smallest_of_a_score() -> None:
    trials = [trial(0, 80.0, 100), trial(1, 85.0, 200), trial(2, 70.0, 50)]
    assert number_of(best_of(trials, Goal(size=150))) == 0
    assert number_of(best_of(trials, Goal(least=79.0))) == 0
    assert best_of(trials, Goal(size="10B")) is None


def test_utilities_order_what_misses_the_goal_below_all_that_meets_it() -> None:
    found = [Measurement(10.0, size_bytes=90), Measurement(99.0, size_bytes=200), Measurement(5.0, size_bytes=150)]
    met, far, near = Goal(size=100).utilities(found)
    assert met > near > far
    met, near, far = Goal(least=50.0).utilities(
        [Measurement(60.0, size_bytes=900), Measurement(49.0, size_bytes=1), Measurement(9.0, size_bytes=1)]
    )
    assert met > near > far


def test_the_front_is_what_no_other_beats_in_both() -> None:
    trials = [trial(0, 80.0, 100), trial(1, 85.0, 200), trial(2, 79.0, 150), trial(3, 70.0, 50), trial(4, 80.0, 120)]
    assert [one.number for one in front_of(trials)] == [3, 0, 1]


def test_a_trial_goes_on_among_the_best_third_or_within_noise() -> None:
    others = [Measurement(float(score)) for score in range(70, 80)]
    assert is_promising(Measurement(78.0), others, Goal(), 3)
    assert not is_promising(Measurement(75.0), others, Goal(), 3)
    assert is_promising(Measurement(75.0, error=1.0), others, Goal(), 3)
    assert is_promising(Measurement(1.0), [], Goal(), 3), "the first always does"


def test_a_study_does_not_chase_noise() -> None:
    rising = [trial(place, 80.0 + 0.05 * place, error=0.4) for place in range(8)]
    assert is_settled(rising, Goal(), 5)
    assert not is_settled(rising, Goal(), None) and not is_settled(rising[:5], Goal(), 5)
    assert not is_settled([*rising, trial(8, 82.0, error=0.4)], Goal(), 5)
    assert not is_settled([trial(place, 80.0, 200) for place in range(9)], Goal(size=100), 5), "nothing is found yet"


def test_what_mattered_is_the_choice_that_scores_follow() -> None:
    space = Space("two", (Choice("noise", (0, 1)), Choice("strong", ("a", "b"))))
    trials = [
        Trial(place, COMPLETE, one, (Measurement(90.0 if one["strong"] == "a" else 80.0),))
        for place, one in enumerate(space)
    ]
    first, second = importance(space, trials, Goal())
    assert (first["name"], first["share"]) == ("strong", pytest.approx(1.0)) and second["share"] == pytest.approx(0.0)
    assert first["values"] == [{"value": "a", "trials": 2, "score": 90.0}, {"value": "b", "trials": 2, "score": 80.0}]


def test_goals_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="both"):
        Goal(size=1, least=1.0)
    with pytest.raises(ConfigError, match="least"):
        Goal(least=float("nan"))
    with pytest.raises(ConfigError, match="size"):
        Goal(size="small")
