"""AdaRound against the best of all choices."""

from __future__ import annotations

import pytest
import torch
from reference.adaround import best_choice
from torch import Tensor

from corank.codecs import Uniform
from corank.errors import ConfigError
from corank.rounding import ROUNDERS, AdaRound, Gptq, Nearest
from corank.statistics import Gram
from corank.testing import check_rounder


def gram_of(groups: int, count: int, columns: int, scale: float = 1.0) -> Gram:
    gram = Gram(groups, columns)
    gram.update(scale * torch.randn(groups, count, columns) @ torch.randn(groups, columns, columns), count)
    return gram


def lost(error: Tensor, gram: Gram) -> Tensor:
    """Of each row."""
    stacked = error.reshape(gram.matrix.shape[0], -1, error.shape[1])
    return ((stacked @ gram.matrix) * stacked).sum(2).flatten()


def test_conformance() -> None:
    check_rounder(AdaRound(iterations=100))


def test_registered() -> None:
    assert ROUNDERS["adaround"] is AdaRound
    assert AdaRound.needs == (Gram,)
    assert not AdaRound.corrects_input_error


@pytest.mark.parametrize("codec", [Uniform(3), Uniform(2, True), Uniform(4, group=4)])
def test_is_close_to_the_best_of_all_choices(codec: Uniform) -> None:
    weight, gram = torch.randn(48, 8), gram_of(1, 200, 8)
    codebook = codec.fit(weight)
    below, above = (codebook.values(codes) for codes in codebook.neighbours(weight))
    given = lost(weight - codebook.values(AdaRound()(weight, codebook, {Gram: gram})), gram)
    best = torch.tensor([best_choice(*row, gram.matrix[0]) for row in zip(weight, below, above, strict=True)])
    nearest = lost(weight - codebook.values(codebook.nearest(weight)), gram)
    assert (given >= best * (1 - 1e-3)).all()  # there is nothing better: the search was over the same choices
    reached = (given <= best * 1.001).float().mean()
    assert reached > 0.5
    assert given.sum() < 1.25 * best.sum() < nearest.sum()


def test_stays_between_the_neighbours_and_never_loses_to_nearest() -> None:
    weight, gram = 3 * torch.randn(12, 30), gram_of(3, 100, 30)
    codebook = Uniform(2, range="std", deviations=1.0).fit(weight)  # many weights beyond the range
    codes = AdaRound(iterations=200)(weight, codebook, {Gram: gram})
    below, above = codebook.neighbours(weight)
    assert ((codes == below) | (codes == above)).all()
    ours = lost(weight - codebook.values(codes), gram)
    assert (ours <= lost(weight - codebook.values(codebook.nearest(weight)), gram) * 1.0001).all()


def test_uncorrelated_inputs_are_rounded_to_nearest() -> None:
    gram = Gram(1, 10)
    gram.update(torch.eye(10)[None], 10)
    weight = torch.randn(6, 10)
    codebook = Uniform(3).fit(weight)
    assert torch.equal(AdaRound()(weight, codebook, {Gram: gram}), Nearest()(weight, codebook, {}))


def test_groups_are_rounded_apart() -> None:
    weight, gram = torch.randn(9, 8), gram_of(3, 100, 8)
    together = AdaRound(iterations=300)(weight, Uniform(3).fit(weight), {Gram: gram})
    for group in range(3):
        own, part = Gram(1, 8), weight[3 * group : 3 * group + 3]
        own._outer, own.count = gram._outer[group : group + 1], gram.count
        alone = AdaRound(iterations=300)(part, Uniform(3).fit(part), {Gram: own})
        assert torch.equal(together[3 * group : 3 * group + 3], alone)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_units_do_not_matter(scale: float) -> None:
    weight = torch.randn(4, 10)
    state = torch.get_rng_state()
    plain = AdaRound(iterations=200)(weight, Uniform(3).fit(weight), {Gram: gram_of(1, 100, 10)})
    torch.set_rng_state(state)
    assert torch.equal(
        plain, AdaRound(iterations=200)(weight, Uniform(3).fit(weight), {Gram: gram_of(1, 100, 10, scale)})
    )


def test_gradients_may_be_off() -> None:
    weight, gram = torch.randn(4, 8), gram_of(1, 100, 8)
    codebook = Uniform(2).fit(weight)
    expected = AdaRound(iterations=50)(weight, codebook, {Gram: gram})
    with torch.inference_mode():
        assert torch.equal(AdaRound(iterations=50)(weight, codebook, {Gram: gram}), expected)


@pytest.mark.parametrize(
    "given", [{"iterations": 0}, {"iterations": 1.5}, {"learning_rate": 0}, {"warm_start": 1}, {"regularisation": -1}]
)
def test_errors(given: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="AdaRound"):
        AdaRound(**given)  # pyright: ignore[reportArgumentType]


def test_needs_the_gram() -> None:
    weight = torch.randn(2, 3)
    with pytest.raises(KeyError, match="AdaRound needs the statistic Gram"):
        AdaRound()(weight, Uniform(3).fit(weight), {})


def test_layers_are_compared_without_learning() -> None:
    assert AdaRound().comparison_stand_in() == Gptq()
    assert Gptq(damping=0.02, sweeps=3).comparison_stand_in() == Gptq(damping=0.02)
    assert Nearest().comparison_stand_in() == Nearest()


def test_with_sweeps_no_row_loses_more_than_by_gptq_or_nearest() -> None:
    # Inputs much alike: AdaRound alone is stuck far above GPTQ.
    few = Gram(1, 60)
    few.update(torch.randn(1, 400, 4) @ torch.randn(1, 4, 60) + 0.05 * torch.randn(1, 400, 60), 400)
    weight = torch.randn(24, 60)
    codebook = Uniform(3, range="mse").fit(weight)
    rounders = {
        "own": AdaRound(100, learning_rate=0.05, sweeps=3),
        "plain": AdaRound(100, learning_rate=0.05),
        "gptq": Gptq(sweeps=3),
        "nearest": Nearest(),
    }
    left = {
        name: lost(weight - codebook.values(one(weight, codebook, {Gram: few})), few) for name, one in rounders.items()
    }
    for name in ("plain", "gptq", "nearest"):
        assert (left["own"] <= left[name] * 1.0001).all(), name
    assert left["gptq"].sum() < left["plain"].sum()
    with pytest.raises(ConfigError, match=r"AdaRound\(sweeps=-1\)"):
        AdaRound(sweeps=-1)
