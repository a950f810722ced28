"""A recipe's name: what it gives, and what it may have meant."""

from __future__ import annotations

import pytest

from corank.errors import ConfigError
from corank.training import Recipe
from corank.training.recipes import RECIPES, chosen_recipe


def test_a_name_is_a_method_and_its_bits() -> None:
    assert chosen_recipe("stats-2bit") == RECIPES["stats"](2, None)
    assert chosen_recipe("binary-relax-1bit") == RECIPES["binary-relax"](1, None)
    assert chosen_recipe("bcgd-w1a4") == RECIPES["bcgd"](1, 4)
    assert chosen_recipe(Recipe(iterations=3)) == Recipe(iterations=3)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("stast-2bit", "no recipe is called 'stast-2bit'; did you mean 'stats-2bit'"),
        ("stats2bit", "did you mean 'stats-2bit'"),
        ("stats-16bit", "did you mean 'stats-8bit'"),
        ("Lsq-W4A4", "did you mean 'lsq-w4a4'"),
        ("lsq-4a3", "did you mean 'lsq-w4a3'"),
        ("binary_relax_1bit", "did you mean 'binary-relax-1bit'"),
        ("binry-relax-w1a4", "did you mean 'binary-relax-w1a4'"),
        ("stats", "'stats' needs its bits: stats-2bit, or stats-w4a4"),
        ("zzz", "METHOD-Nbit or METHOD-wNaM, e.g. 'stats-2bit'"),
        ("", "no recipe is called ''"),
        ("x" * 100_000, "no recipe is called"),
        (2, "recipe=2: a name such as 'stats-2bit', or a corank.Recipe"),
    ],
)
def test_an_unknown_name_names_the_nearest(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        chosen_recipe(name)
    assert len(str(caught.value)) < 1000


def test_bits_that_a_method_does_not_have() -> None:
    with pytest.raises(ConfigError, match="ternary-3bit"):
        chosen_recipe("ternary-3bit")
    with pytest.raises(ConfigError, match="2 to 8"):
        chosen_recipe("stats-w2a1")
