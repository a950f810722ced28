from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from corank.errors import ModelError
from corank.models.state_dict import averages_beside, mixed_prefix, state_dict_in, under_names_of

ONE, TWO, FILE = torch.ones(1), torch.ones(2), Path("w.pt")


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"a": ONE}, None),
        ({"state_dict": {"a": ONE}, "model": {"a": TWO}}, None),
        ({"ema": {"a": TWO}, "model": {"state_dict": {"a": ONE}}}, None),
        ({"ema": {"module": {"a": ONE}, "decay": 0.9}, "model": {"a": TWO}}, "ema"),
        ({"mine": {"a": ONE}, "model": {"a": TWO}}, "mine"),
        ({"state_dict": {"student.a": ONE, "teacher.a": TWO}}, "student"),
    ],
)
def test_the_container_that_is_taken(content: dict[str, Any], key: str | None) -> None:
    assert state_dict_in(content, FILE, key)["a"] is ONE


def test_averages_stand_beside_the_trained() -> None:
    assert averages_beside({"model": {"a": ONE}, "model_ema": {"a": ONE}, "ema": None}) == ["model_ema"]
    assert averages_beside({"model_ema": {"a": ONE}}) == [] and averages_beside({"a": ONE}) == []


def test_nothing_of_that_name() -> None:
    with pytest.raises(ModelError, match=r"has no 'best': it holds model, with names such as a"):
        state_dict_in({"model": {"a": ONE}}, FILE, "best")


@pytest.mark.parametrize(
    ("given", "known", "expected"),
    [
        (["a", "b"], ["a", "b"], ["a", "b"]),
        (["module.a", "module.b"], ["a", "b"], ["a", "b"]),
        (["a", "b"], ["module.a", "module.b"], ["module.a", "module.b"]),
        (["a", "b"], ["module._orig_mod.a", "module._orig_mod.b"], ["module._orig_mod.a", "module._orig_mod.b"]),
        (["model.a", "head"], ["model.a", "head"], ["model.a", "head"]),
        (["net.model.a", "net.head"], ["model.a", "head"], ["model.a", "head"]),
        (["model.a", "model.b"], ["model.a", "model.b"], ["model.a", "model.b"]),
        (["f.module.a", "c"], ["f.a", "c"], ["f.a", "c"]),
        (["f.a", "c"], ["f.module.a", "c"], ["f.module.a", "c"]),
        (["module.a", "n_averaged"], ["a"], ["a"]),
        (["module.a", "b"], ["a", "b"], ["module.a", "b"]),  # not every name has it
        (["x", "y"], ["a", "b"], ["x", "y"]),
    ],
)
def test_names(given: list[str], known: list[str], expected: list[str]) -> None:
    assert list(under_names_of(dict.fromkeys(given, ONE), known)) == expected


def test_a_prefix_of_some_is_said() -> None:
    assert "1 of its 2 names begin with 'net.'" in mixed_prefix(["net.a", "b"], ["a"], FILE)
    assert mixed_prefix(["net.a", "b"], ["c"], FILE) == "" == mixed_prefix(["net.a"], ["a"], FILE)
