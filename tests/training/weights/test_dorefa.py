"""DoReFa: the paper's formula, gradients through tanh and the maximum, the grid of the file, starts."""

from __future__ import annotations

import pytest
import torch

from corank.codecs import Binary, StatsQ
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError
from corank.training.weights import DoReFa, WeightStart


def formula(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """As the paper has it, in [-1, 1]."""
    squeezed = weight.tanh() / (2 * weight.tanh().abs().max()) + 0.5
    return 2 * (squeezed * (2**bits - 1)).round() / (2**bits - 1) - 1


@pytest.mark.parametrize("bits", range(2, 9))
def test_values_are_those_of_the_paper_times_the_largest_weight(bits: int) -> None:
    weight = torch.randn(6, 50)
    running, start = DoReFa(bits).start(WeightStart(weight))
    with torch.no_grad():
        value = running(start)
    assert torch.equal(start, weight)
    assert torch.allclose(value, weight.abs().max() * formula(weight, bits), rtol=2e-3)  # the scale is one of fp16
    assert len(value.unique()) <= 2**bits and not bool((value == 0).any())
    coded = running.coded(start)
    assert torch.equal(coded.decode(), value)
    again = DoReFa(bits).stored.codebook({n: t.float() for n, t in coded.codebook.tensors().items()}, 6, 50)
    assert torch.equal(again.values(coded.codes), value)


def test_one_bit_is_the_sign_times_the_mean_magnitude_of_the_weight() -> None:
    weight = torch.randn(4, 30)
    weight[0, 0] = 0.0
    running, start = DoReFa(1).start(WeightStart(weight))
    leaf = start.clone().requires_grad_()
    value = running(leaf)
    mean = weight.abs().mean().half().float()
    assert torch.equal(value.detach(), torch.where(weight < 0, -mean, mean))
    value.backward(weight)
    assert torch.equal(leaf.grad, weight)


def test_the_gradient_is_that_of_tanh_over_its_maximum() -> None:
    weight, upstream = torch.randn(3, 20).double(), torch.randn(3, 20).double()
    running, _ = DoReFa(3).start(WeightStart(weight.float()))
    leaf = weight.clone().requires_grad_()
    running(leaf).backward(upstream)
    largest, reach = weight.tanh().abs().max(), float(running.get_buffer("reach"))
    expected = reach * upstream * (1 - weight.tanh().square()) / largest
    place = weight.abs().argmax()
    through = -(reach * upstream * weight.tanh() / largest.square()).sum()
    top = weight.flatten()[place]
    expected.flatten()[place] += through * top.sign() * (1 - top.tanh().square())
    assert torch.allclose(leaf.grad, expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [1e-3, 0.1, 30.0])
def test_the_start_from_codes_gives_exactly_those(bits: int, size: float) -> None:
    way = DoReFa(bits)
    weight = size * torch.randn(6, 200)
    book = way.stored.fit(weight)
    codes = book.nearest(weight + 0.3 * size * torch.randn(6, 200))
    running, start = way.start(WeightStart(weight, CodedWeight(codes, book)))
    coded = running.coded(start)
    assert torch.equal(coded.codes, codes)
    with torch.no_grad():
        assert torch.equal(running(start), coded.decode())
    if bits > 1:
        assert torch.equal(coded.decode(), book.values(codes))


def test_a_weight_of_zeros() -> None:
    running, start = DoReFa(2).start(WeightStart(torch.zeros(2, 3)))
    leaf = start.requires_grad_()
    running(leaf).sum().backward()
    assert bool(torch.isfinite(running(leaf)).all()) and bool(torch.isfinite(leaf.grad).all())


def test_bad_settings() -> None:
    for bits in (0, 9):
        with pytest.raises(ConfigError, match="1 to 8"):
            DoReFa(bits)
    assert DoReFa(4).with_codec(StatsQ(2, -1)) == DoReFa(2) and DoReFa(4).with_codec(Binary(group=-1)) == DoReFa(1)
    for codec in (StatsQ(4), Binary()):
        with pytest.raises(ConfigError, match="ends in"):
            DoReFa(4).with_codec(codec)
