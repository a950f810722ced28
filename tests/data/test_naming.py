from __future__ import annotations

import pytest

from corank.data.naming import NamePattern, chosen_by
from corank.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("{label}_{group}_{index}", "set/7_theo_12.wav", {"label": "7", "group": "theo", "index": "12"}),
        ("{label}_{group}_{index}", "a_b_c_d.wav", {"label": "a", "group": "b", "index": "c_d"}),
        ("{group}/{label}/take{index}", "all/ann/yes/take3.wav", {"group": "ann", "label": "yes", "index": "3"}),
        ("{label}", "no.more.wav", {"label": "no.more"}),
        ("w-{label}.x", "w-one.x.wav", {"label": "one"}),
    ],
)
def test_names_are_taken_apart(pattern: str, path: str, found: dict[str, str]) -> None:
    assert NamePattern(pattern)(path) == found


@pytest.mark.parametrize("path", ["readme.wav", "7_theo.wav", "_theo_1.wav", "7__1.wav", "7_theo_.wav"])
def test_a_name_of_another_pattern_is_named(path: str) -> None:
    with pytest.raises(DataError, match="rename or remove") as caught:
        NamePattern("{label}_{group}_{index}")(path)
    assert path in str(caught.value)


@pytest.mark.parametrize("text", ["{group}", "{label}{index}", "{label}_{label}", "{la bel}_{label}", "", "{label}_{"])
def test_a_pattern_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="pattern"):
        NamePattern(text)


def test_a_long_hostile_name_takes_no_time() -> None:
    with pytest.raises(DataError):
        NamePattern("{a}_{b}_{c}_{d}_{e}_{f}-{label}")("_a" * 1_000_000 + ".wav")


PARTS = {"group": ["ann", "bob", "ann", "cy"], "index": ["0", "1", "10", "2"]}


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("group=ann", [0, 2]),
        ("[group != ann]", [1, 3]),
        ("index<2", [0, 1]),
        ("index>=2", [2, 3]),
        ("group=ann|cy & index>1", [2, 3]),
        ("group==bob", [1]),
        ("index<=1", [0, 1]),
    ],
)
def test_conditions_choose(text: str, places: list[int]) -> None:
    assert chosen_by(text, PARTS).tolist() == places


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("speaker=ann", "group, index"),
        ("group<3", "compares numbers"),
        ("group=dan", "none of the 4"),
        ("=3", "NAME=VALUE"),
        ("index<", "NAME=VALUE"),
    ],
)
def test_conditions_that_cannot_be_say_why(text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        chosen_by(text, PARTS)
