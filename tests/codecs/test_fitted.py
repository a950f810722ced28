"""What codecs of fitted levels share: what is stored per row, layer and network, scales, a zero."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from corank.codecs import EntropyConstrained, KMeans, Levels, Quantiles, RowLevels, ScalarCodebook, UniformGrid
from corank.codecs.fitted import FittedLevels
from corank.errors import ConfigError

KINDS = (KMeans, Quantiles, UniformGrid, EntropyConstrained)


@pytest.mark.parametrize("kind", KINDS)
def test_levels_are_counted_in_bytes(kind: type[Any]) -> None:
    for codec, beside in (
        (kind(3, "layer", False), 8 * 16),
        (kind(3, "layer", True), 8 * 16 + 10 * 16),
        (kind(3, "row", False), 10 * 8 * 16),
    ):
        book = codec.fit(torch.randn(10, 40))
        assert isinstance(book, RowLevels if codec.per == "row" else ScalarCodebook)
        assert codec.size_bits(10, 40) == 10 * 40 * 3 + beside
        assert book.size_bits == beside


@pytest.mark.parametrize("kind", KINDS)
def test_zero_is_kept_for_pruned_weights(kind: type[Any]) -> None:
    weight = torch.randn(6, 30) + 2
    weight[torch.rand(6, 30) < 0.7] = 0
    for per, scaled in (("layer", False), ("layer", True), ("row", False)):
        book = kind(2, per, scaled, zero=True).fit(weight)
        values = book.values(book.nearest(weight))
        assert not values[weight == 0].any() and bool((values != 0).any())


def test_zero_takes_nothing_from_the_other_levels() -> None:
    """Three levels for three values, however many zeros there are."""
    weight = torch.tensor([[0.0] * 50 + [1.0, -2.0, 4.0]])
    book = KMeans(2, scaled=False, zero=True).fit(weight)
    assert torch.equal(book.values(book.nearest(weight)), weight)


def test_scaled_levels_do_not_see_the_size_of_rows() -> None:
    weight = torch.randn(4, 100)
    grown = weight * torch.tensor([[1.0], [4.0], [0.125], [64.0]])
    one, other = KMeans(3).fit(weight), KMeans(3).fit(grown)
    assert torch.equal(one.nearest(weight), other.nearest(grown))
    plain = KMeans(3, scaled=False).fit(grown)
    lost = [(book.values(book.nearest(grown)) - grown)[2].square().mean() for book in (other, plain)]
    assert lost[0] < 0.01 * lost[1]


def test_one_codebook_for_the_network() -> None:
    weights = [torch.randn(1, 6, 20), torch.randn(2, 3, 9) * 8]
    shared = KMeans(3, per="network").for_network(weights)
    assert isinstance(shared, Levels) and shared.bits == 3 and len(shared.values) == 8 and shared.group == 0
    assert shared.size_bits(6, 20) == 6 * 20 * 3 + 6 * 16
    pooled = torch.cat([(part / part.square().mean(-1, keepdim=True).sqrt()).flatten() for part in weights])[None]
    alone = KMeans(3, scaled=False).fit(pooled)
    assert torch.allclose(alone.tensors()["levels"].float(), torch.tensor(shared.values), atol=2e-2)
    assert KMeans(3).for_network(weights) == KMeans(3)
    whole = KMeans(3, per="network", scaled=False).for_network(weights)
    assert isinstance(whole, Levels) and whole.group == -1
    with pytest.raises(ConfigError, match="for_network"):
        KMeans(per="network").fit(weights[0][0])
    with pytest.raises(ConfigError, match="for_network"):
        KMeans(per="network").size_bits(3, 3)


def test_few_weights_for_many_levels() -> None:
    weight = torch.tensor([[0.5, -0.25, 0.5]])
    for kind in KINDS:
        book = kind(4, scaled=False).fit(weight)
        assert torch.allclose(book.values(book.nearest(weight)), weight, rtol=1e-3)
        assert set(book.nearest(torch.tensor([[9.0]])).flatten().tolist()) <= set(
            book.nearest(weight).flatten().tolist()
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"bits": 9}, "to 8"),
        ({"bits": 0}, "to 8"),
        ({"bits": (1, 2)}, "to 8"),
        ({"per": "column"}, "'row', 'layer' or 'network'"),
        ({"scaled": 1}, "true or false"),
        ({"per": "row", "scaled": True}, "no use"),
    ],
)
def test_bad_settings(kind: type[FittedLevels], fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        kind(**fields)


def test_a_zero_takes_two_bits() -> None:
    with pytest.raises(ConfigError, match="2 bits or more"):
        KMeans(1, zero=True)


def test_rows_fitted_apart_may_differ_in_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two levels of one row coincide in fp16, so that its part has no thresholds of its own."""
    monkeypatch.setattr("corank.codecs.fitted._CHUNK", 64 * 256)
    weight = torch.randn(128, 256)
    weight[100] = torch.tensor([1.0, 1.0001, 1.0002, 1.0003, 5.0, 6.0, 7.0, 8.0]).repeat(32)
    codec = EntropyConstrained(3, per="row", scaled=False)
    whole, top = codec.fit(weight), codec.fit(weight[:64])
    assert torch.equal(whole.nearest(weight)[:64], top.nearest(weight[:64]))
    assert float((whole.values(whole.nearest(weight)) - weight)[100].abs().max()) < 1e-3
