"""k-means as a codec, and weighted by the inputs' energy."""

from __future__ import annotations

import pytest
import torch
from reference.clusters import optimal_kmeans

from corank.codecs import KMeans, Uniform
from corank.errors import ConfigError
from corank.testing import check_codec


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize(("per", "scaled"), [("row", False), ("layer", True), ("layer", False)])
def test_conformance(bits: int, per: str, scaled: bool) -> None:
    check_codec(KMeans(bits, per, scaled))


@pytest.mark.parametrize("per", ["row", "layer"])
def test_conformance_with_a_zero(per: str) -> None:
    check_codec(KMeans(2, per, False, zero=True))


def test_near_the_optimum_of_each_row() -> None:
    weight = torch.randn(3, 24)
    book = KMeans(2, "row", False).fit(weight)
    lost = (book.values(book.nearest(weight)) - weight).square().sum(1)
    for row in range(3):
        best = optimal_kmeans(weight[row].tolist(), 4, [1.0] * 24)
        assert best * 0.999 <= float(lost[row]) <= 1.3 * best


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_loses_less_than_equal_steps(bits: int) -> None:
    weight = torch.randn(8, 400)
    lost = []
    for codec in (KMeans(bits, "row", False), Uniform(bits, range="mse", half=bits < 8)):
        book = codec.fit(weight)
        lost.append(float((book.values(book.nearest(weight)) - weight).square().sum()))
    assert lost[0] < lost[1]


def test_inputs_of_more_energy_count_more() -> None:
    weight = torch.randn(4, 60)
    energy = torch.logspace(0, -4, 60)
    gram = torch.diag(energy)[None]
    lost = []
    for weighted in (True, False):
        book = KMeans(2, "row", False, weighted=weighted).fit(weight, gram)
        lost.append(float(((book.values(book.nearest(weight)) - weight).square() * energy).sum()))
    assert lost[0] < 0.6 * lost[1]
    plain = KMeans(2, weighted=True).fit(weight)
    assert torch.equal(plain.tensors()["levels"], KMeans(2).fit(weight).tensors()["levels"])


def test_each_group_has_its_own_inputs() -> None:
    weight = torch.randn(4, 10)
    weight[2:] = weight[:2]
    energy = torch.stack([torch.logspace(0, -5, 10), torch.logspace(-5, 0, 10)])
    book = KMeans(2, "row", False, weighted=True).fit(weight, torch.diag_embed(energy))
    error = (book.values(book.nearest(weight)) - weight).square()
    own = (error * energy.repeat_interleave(2, 0)).sum()
    other = (error * energy.flip(0).repeat_interleave(2, 0)).sum()
    assert float(own) < 0.2 * float(other)
    with pytest.raises(ConfigError, match="true or false"):
        KMeans(weighted=2)  # pyright: ignore[reportArgumentType]
