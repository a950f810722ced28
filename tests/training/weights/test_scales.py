"""Codes that stay under scales that train, of every codec."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from corank.codecs import CODECS, Codec, ICQuant, Uniform
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError
from corank.training.weights import Scales, WeightStart
from corank.training.weights.scales import ScalesWeight

TENSORS = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
CODEC_LIST = [kind() for _, kind in sorted(CODECS.items())]
STORING = [one for one in CODEC_LIST if any(t.is_floating_point() for t in one.fit(TENSORS).tensors().values())]


def weight(seed: int = 0) -> Tensor:
    return torch.randn(6, 40, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("codec", STORING, ids=lambda codec: type(codec).__name__)
def test_scales_move_and_codes_stay(codec: Codec) -> None:
    way, start = Scales(codec).start(WeightStart(weight()))
    assert isinstance(way, ScalesWeight) and not way.trains_weight
    before = way.coded(start)
    (way(start) * weight(1)).sum().backward()
    for name, growth in way.named_parameters():
        assert growth.grad is not None and bool(torch.isfinite(growth.grad).all()), name
    assert any(bool(growth.grad.any()) for growth in way.parameters() if growth.grad is not None)
    with torch.no_grad():
        for growth in way.parameters():
            assert growth.grad is not None
            growth -= 0.1 * growth.grad.sign()
        after = way.coded(start)
        assert torch.equal(after.decode(), way(start)) and torch.equal(after.codes, before.codes)
        assert not torch.equal(after.decode(), before.decode())


@pytest.mark.parametrize("codec", [one for one in STORING if not isinstance(one, ICQuant)], ids=repr)
def test_it_starts_from_the_codes_given(codec: Codec) -> None:
    book = codec.fit(weight())
    codes = book.nearest(weight() + 0.1 * weight(1))
    way, start = Scales(codec).start(WeightStart(weight(), CodedWeight(codes, book)))
    assert torch.equal(way(start), book.values(codes)) and torch.equal(start, book.values(codes))


def test_the_gradient_of_a_scale_is_that_of_its_row() -> None:
    way, start = Scales(Uniform(2, symmetric=True)).start(WeightStart(weight()))
    upstream = weight(2)
    (way(start) * upstream).sum().backward()
    growth = way.get_parameter("growth_scale")  # d (s exp g) / dg = s exp g, so the row's own values weigh
    torch.testing.assert_close(growth.grad, (start * upstream).sum(1), rtol=1e-4, atol=1e-4)


def test_codecs_without_numbers_are_refused() -> None:
    for codec in CODEC_LIST:
        if codec not in STORING:
            with pytest.raises(ConfigError, match="StraightThrough"):
                Scales(codec).start(WeightStart(weight()))
