"""Straight through: rounded forward, the identity backward, started from given codes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from corank.codecs import CODECS, Bcgd, Binary, Codec, ICQuant, KMeans, PowerOfTwo, StatsQ, Ternary, Uniform
from corank.codecs.scalar import ScalarCodebook
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError
from corank.training.weights import StraightThrough, WeightStart

CODEC_LIST = [kind() for name, kind in sorted(CODECS.items())]


def weight(rows: int = 6, columns: int = 40, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("codec", CODEC_LIST, ids=lambda codec: type(codec).__name__)
def test_every_codec_trains_and_evaluates_to_what_it_ships(codec: Codec) -> None:
    way, start = StraightThrough(codec).start(WeightStart(weight()))
    latent = start.clone().requires_grad_(True)
    value = way(latent)
    upstream = torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    (value * upstream).sum().backward()
    assert latent.grad is not None
    torch.testing.assert_close(latent.grad, upstream, rtol=0, atol=0)
    way.eval()
    with torch.no_grad():
        assert torch.equal(way(start), way.coded(start).decode())


@pytest.mark.parametrize("codec", [one for one in CODEC_LIST if not isinstance(one, ICQuant)], ids=repr)
def test_it_starts_from_the_codes_given(codec: Codec) -> None:
    given = weight()
    book = codec.fit(given)
    codes = book.nearest(given + 0.05 * weight(seed=3))
    way, start = StraightThrough(codec, refit=0).start(WeightStart(given, CodedWeight(codes, book)))
    assert torch.equal(way(start), book.values(codes))


@pytest.mark.parametrize("codec", [StatsQ(2), StatsQ(4), Binary()], ids=str)
def test_a_scale_that_follows_the_weight_is_at_the_start_the_one_given(codec: Codec) -> None:
    given = weight()
    book = codec.fit(given)
    assert isinstance(book, ScalarCodebook)
    book = replace(book, scale=book.scale * torch.linspace(0.8, 1.3, 6)[:, None])
    codes = book.nearest(given + 0.3 * weight(seed=5))
    way, start = StraightThrough(codec).start(WeightStart(given, CodedWeight(codes, book)))
    coded = way.coded(start)
    assert torch.equal(coded.codes, codes)
    torch.testing.assert_close(coded.decode(), book.values(codes), rtol=1e-6, atol=0)
    moved = way.coded(2 * start).decode()
    torch.testing.assert_close(moved, 2 * coded.decode(), rtol=1e-3, atol=0)  # it follows


def test_clipped_weights_get_no_gradient_where_asked() -> None:
    given = torch.tensor([[0.1, -0.2, 3.0, -3.0, 0.4, 0.3]])
    way, start = StraightThrough(StatsQ(2), clip=True).start(WeightStart(given))
    latent = start.clone().requires_grad_(True)
    way(latent).sum().backward()
    assert latent.grad is not None
    assert latent.grad.tolist() == [[1, 1, 0, 0, 1, 1]]


def test_a_searched_codebook_is_fitted_anew_every_so_many_steps() -> None:
    way, start = StraightThrough(Uniform(3, range="mse"), refit=3).start(WeightStart(weight()))
    wider = 2 * start
    for step in range(2):
        way.after_step(wider, step)
    before = way(wider)
    way.after_step(wider, 2)
    assert float((way(wider) - wider).norm()) < float((before - wider).norm())


def test_refits_of_its_own_choice() -> None:
    assert [StraightThrough(codec).every for codec in (StatsQ(2), Binary(), Ternary(), Bcgd(4))] == [1, 1, 1, 1]
    assert [StraightThrough(codec).every for codec in (Uniform(4), PowerOfTwo(3), KMeans(2))] == [50, 50, 50]


def test_a_state_comes_back() -> None:
    for codec in (Uniform(3, range="mse"), StatsQ(2), KMeans(2), PowerOfTwo(3, power_of_two_scale=True)):
        way, start = StraightThrough(codec).start(WeightStart(weight()))
        other, _ = StraightThrough(codec).start(WeightStart(weight(seed=9)))
        other.load_state_dict(way.state_dict())
        assert torch.equal(other(start), way(start))


def test_outliers_train_with_their_own_codebook() -> None:
    given = weight(8, 128)
    book = ICQuant(2).fit(given)
    way, start = StraightThrough(ICQuant(2)).start(WeightStart(given, CodedWeight(book.nearest(given), book)))
    way.after_step(start, 49)
    assert torch.equal(way(start), way.coded(start).decode())
    assert float((way(start) - given).norm()) < 0.4 * float(given.norm())
    with pytest.raises(ConfigError, match="refit=1"):
        StraightThrough(ICQuant(2), refit=50)


@pytest.mark.parametrize("refit", [-1, 0.5, True])
def test_steps_are_whole(refit: object) -> None:
    with pytest.raises(ConfigError, match="refit="):
        StraightThrough(StatsQ(2), refit=refit)  # pyright: ignore[reportArgumentType]
