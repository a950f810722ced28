"""Trellis paths with error feedback: paths, their cost, pruned weights, and what other codecs get."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from corank.codecs import RateUniform, Trellis, Uniform
from corank.codecs.trellis import TrellisCodebook, counted, prices
from corank.errors import ConfigError
from corank.kernels.trellis import visited_states
from corank.rounding import ROUNDERS, Dependent, Gptq, Nearest
from corank.rounding.pruned import Pruned, smallest
from corank.statistics import Gram
from corank.testing import check_rounder


def gram_of(groups: int, columns: int, count: int = 300) -> Gram:
    gram = Gram(groups, columns)
    gram.update(torch.randn(groups, count, columns) @ torch.randn(groups, columns, columns), count)
    return gram


def multiples(codes: Tensor, codebook: TrellisCodebook) -> np.ndarray:
    return codes.numpy().astype(np.int32) - len(codebook.levels) // 2


def lost(error: Tensor, gram: Gram) -> float:
    stacked = error.reshape(gram.matrix.shape[0], -1, error.shape[1])
    return float(((stacked @ gram.matrix) * stacked).sum())


def bits_of(codes: Tensor, codebook: TrellisCodebook) -> float:
    values, most = multiples(codes, codebook), len(codebook.levels) // 2
    visited = visited_states(values, codebook.states)
    assert visited is not None
    counts = counted(values, visited, codebook.states, most)
    return float((counts * prices(counts)).sum()) / codes.numel()


def test_conformance() -> None:
    check_rounder(Dependent())
    assert ROUNDERS["dependent"] is Dependent and Dependent.needs == (Gram,)


@pytest.mark.parametrize("states", [4, 8])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("sweeps", [0, 2])
def test_columns_are_paths(states: int, groups: int, sweeps: int) -> None:
    weight, gram = torch.randn(groups * 20, 17), gram_of(groups, 17)
    codebook = Trellis(rate=1.5, states=states).fit(weight)
    codes = Dependent(sweeps=sweeps)(weight, codebook, {Gram: gram})
    assert visited_states(multiples(codes, codebook), states) is not None
    assert codes.dtype == torch.uint8 and codes.shape == weight.shape
    assert lost(codebook.values(codes) - weight, gram) < lost(weight, gram)


def test_one_column_is_the_cheapest_path_and_errors_are_fed_on() -> None:
    """Of uncorrelated inputs every column is a plain chain; of correlated ones feedback takes off error."""
    weight, gram = torch.randn(60, 24), gram_of(1, 24)
    codebook = Trellis(rate=2.0).fit(weight)
    fed = Dependent()(weight, codebook, {Gram: gram})
    plain = Gram(1, 24)
    plain.update(torch.eye(24)[None], 24)
    apart = Dependent()(weight, codebook, {Gram: plain})
    assert lost(codebook.values(fed) - weight, gram) < 0.7 * lost(codebook.values(apart) - weight, gram)
    assert lost(codebook.values(apart) - weight, plain) < lost(codebook.values(fed) - weight, plain)


def test_sweeps_lower_what_is_paid() -> None:
    weight, gram = torch.randn(40, 30), gram_of(1, 30)
    codebook = Trellis(rate=1.5, states=4).fit(weight)
    price = 0.3 * float(codebook.scale) ** 2 * float(gram.matrix.diagonal(dim1=1, dim2=2).mean())
    paid = []
    for sweeps in (0, 3):
        codes = Dependent(sweeps=sweeps)(weight, codebook, {Gram: gram})
        paid.append(lost(codebook.values(codes) - weight, gram) + price * bits_of(codes, codebook))
    assert paid[1] < paid[0]


def test_fewer_bits_than_plain_codes_at_equal_error() -> None:
    torch.manual_seed(0)
    weight, gram = torch.randn(128, 64), gram_of(1, 64, 2000)

    def scalar(rate: float) -> tuple[float, float]:
        codebook = RateUniform.of(rate).fit(weight)
        codes = Gptq(sweeps=3)(weight, codebook, {Gram: gram})
        shares = torch.bincount(codes.flatten().long()).double() / codes.numel()
        return -float(torch.special.xlogy(shares, shares).sum()) / np.log(2), lost(
            codebook.values(codes) - weight, gram
        )

    codebook = Trellis.of(2.0).fit(weight)
    codes = Dependent(sweeps=3)(weight, codebook, {Gram: gram})
    bits, error = bits_of(codes, codebook), lost(codebook.values(codes) - weight, gram)
    plain = [scalar(rate) for rate in np.linspace(1.6, 2.8, 13)]
    needed = min(rate for rate, least in plain if least <= error)
    assert bits < needed - 0.08


def test_pruned_weights_are_zero() -> None:
    weight, gram = torch.randn(30, 12), gram_of(1, 12)
    mask = smallest(weight, 0.5)
    codebook = Trellis(rate=2.0).fit(weight)
    codes = Dependent(sweeps=1)(weight, Pruned.of(codebook, mask), {Gram: gram})
    assert not codebook.values(codes)[mask].any()
    assert visited_states(multiples(codes, codebook), 8) is not None


def test_other_codecs_are_rounded_as_gptq_does() -> None:
    weight, gram = torch.randn(9, 12), gram_of(1, 12)
    for codec in (Uniform(3), RateUniform.of(2.0)):
        codebook = codec.fit(weight)
        codes = Dependent(sweeps=2)(weight, codebook, {Gram: gram})
        assert torch.equal(codes, Gptq(sweeps=2)(weight, codebook, {Gram: gram}))


def test_trellis_codes_of_other_rounders_have_their_values() -> None:
    weight = torch.randn(9, 12)
    codebook = Trellis(rate=3.0).fit(weight)
    codes = Nearest()(weight, codebook, {})
    assert float((codebook.values(codes) - weight).abs().max()) <= 0.51 * float(codebook.scale)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="both are positive"):
        Dependent(damping=0)
    with pytest.raises(ConfigError, match="whole number"):
        Dependent(sweeps=-1)
