"""DenseShift: decomposition and surrogate by hand, no zero, every code, starts, exact products of what trained."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from reference.levels import dense_shift

from corank.codecs import DenseShift, StatsQ
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError
from corank.storage.bits import pack, unpack
from corank.training.weights import DenseShiftLatents, TrainableWeight, WeightStart


def of_latents(bits: int, signs: torch.Tensor, shifts: torch.Tensor) -> TrainableWeight:
    """The running form with these latents, in units of its smallest value."""
    running, _ = DenseShiftLatents(bits).start(WeightStart(torch.randn_like(signs), fresh=True))
    with torch.no_grad():
        running.get_parameter("signs").copy_(signs)
        running.get_parameter("shifts").copy_(shifts)
        running.get_buffer("scale").fill_(2.0 ** len(shifts))
    return running


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_values_are_signed_powers_of_two_without_zero(bits: int) -> None:
    chain = 2 ** (bits - 1) - 1
    signs, shifts = torch.randn(20, 50), torch.randn(chain, 20, 50)
    signs[:, ::3], shifts[:, ::2], shifts[:, 5] = 0.0, 0.0, -0.0
    running = of_latents(bits, signs, shifts)
    value = running(signs).detach()
    assert set(value.unique().tolist()) <= set(dense_shift(bits)) and not bool((value == 0).any())
    assert bool((value[:, ::3] > 0).all()) and bool((value[::2].abs() == 2.0**chain).all())


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_values_equal_the_recursion_in_loops_and_the_codes(bits: int) -> None:
    chain = 2 ** (bits - 1) - 1
    patterns = list(itertools.product((-1.0, 1.0), repeat=chain + 1))
    latents = torch.tensor(patterns).T[:, None]
    running = of_latents(bits, latents[0], latents[1:])
    expected = []
    for first, *others in patterns:
        shift = 0
        for latent in others:
            shift = (shift + 1) * (latent >= 0)
        expected.append(math.copysign(2.0**shift, first))
    with torch.no_grad():
        value, coded = running(latents[0]), running.coded(latents[0])
    assert value[0].tolist() == expected and torch.equal(coded.decode(), value)
    assert len(coded.codes.unique()) == 2**bits
    flat = coded.codes.flatten()
    assert torch.equal(unpack(pack(flat, bits), bits, len(flat)), flat)


@pytest.mark.parametrize("first", [-0.3, 0.3])
@pytest.mark.parametrize("pattern", list(itertools.product((0, 1), repeat=3)))
def test_backward_is_the_formula_by_hand(pattern: tuple[int, int, int], first: float) -> None:
    """dL/dsigma = g sqrt(S + 1), dL/dS = g sigma / (2 sqrt(S + 1)), and the chain of bits; signs and bits: identity."""
    b1, b2, b3 = pattern
    s1, s2 = b1, (b1 + 1) * b2
    s3 = (s2 + 1) * b3
    sigma, upstream = math.copysign(1.0, first), 0.7
    latents = torch.tensor([9.0 if one else -9.0 for one in pattern])[:, None, None]  # nothing is clipped
    running = of_latents(3, torch.tensor([[first]]), latents)
    value = running(torch.zeros(1, 1))
    assert float(value.detach()) == sigma * 2.0**s3
    value.backward(torch.tensor([[upstream]]))
    of_shift = upstream * sigma / (2 * math.sqrt(s3 + 1))
    expected = [of_shift * b3 * b2, of_shift * b3 * (s1 + 1), of_shift * (s2 + 1)]
    assert float(running.get_parameter("signs").grad) == pytest.approx(upstream * math.sqrt(s3 + 1))
    assert running.get_parameter("shifts").grad.flatten().tolist() == pytest.approx(expected)


def test_the_start_from_scratch_is_of_low_variance_and_halves_with_every_exponent() -> None:
    weight = 0.05 * torch.randn(200, 300)
    running, value = DenseShiftLatents(3).start(WeightStart(weight, seed=3, fresh=True))
    for name in ("signs", "shifts"):
        assert float(running.get_parameter(name).detach().std()) == pytest.approx(1e-3, rel=0.05)
    assert not running.trains_weight and set(running.latents) == {name for name, _ in running.named_parameters()}
    smallest = float(value.abs().min())
    shares = [float((value.abs() == smallest * 2**shift).float().mean()) for shift in range(4)]
    assert shares == pytest.approx([0.5, 0.25, 0.125, 0.125], abs=0.01)
    assert 0.7 < float(value.square().mean().sqrt() / 0.05) < 1.42  # a power of two off at most half an octave
    assert math.frexp(smallest)[0] == 0.5


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("group", [-1, 0])
def test_starts_from_codes_and_from_float_give_exactly_those(bits: int, group: int) -> None:
    way = DenseShiftLatents(bits, group)
    weight = 0.1 * torch.randn(6, 40)
    weight[0, :9] = 0.0
    book = way.stored.fit(weight)
    running, value = way.start(WeightStart(weight))
    assert torch.equal(value, book.values(book.nearest(weight)))
    codes = torch.randint(0, 2**bits, (6, 40), dtype=torch.uint8)  # far from the weight's own
    running, value = way.start(WeightStart(weight, CodedWeight(codes, book)))
    with torch.no_grad():
        assert torch.equal(value, book.values(codes)) and torch.equal(running(weight), value)
    assert torch.equal(running.coded(weight).codes, codes) and running.codec == way.stored
    again = way.stored.codebook(running.coded(weight).codebook.tensors(), 6, 40)
    assert torch.equal(again.values(codes), value)


def test_a_product_with_what_trained_is_an_addition_of_exponents() -> None:
    running, _ = DenseShiftLatents(3).start(WeightStart(torch.randn(5, 64), fresh=True))
    optimizer = torch.optim.SGD(running.parameters(), lr=0.1)
    target = torch.randn(5, 64)
    before = running.coded(target).codes
    for _ in range(20):
        optimizer.zero_grad()
        (running(target) - target).square().sum().backward()
        optimizer.step()
    weight = running.coded(target).decode()
    assert not torch.equal(running.coded(target).codes, before)
    inputs = torch.randn(5, 64)
    inputs[:, ::7] = 0
    words = inputs.view(torch.int32) + (weight.abs().log2().int() << 23)
    words = torch.where(weight < 0, words ^ torch.tensor(-(2**31), dtype=torch.int32), words)
    product = torch.where(inputs == 0, 0.0, words.view(torch.float32))  # an exponent cannot be added to zero
    assert torch.equal(product, torch.where(inputs == 0, 0.0, inputs * weight))


def test_bad_settings() -> None:
    for bits in (1, 5):
        with pytest.raises(ConfigError, match="2 to 4"):
            DenseShiftLatents(bits)
    with pytest.raises(ConfigError, match="above zero"):
        DenseShiftLatents(deviation=0.0)
    assert DenseShiftLatents().with_codec(DenseShift(2, -1, True)) == DenseShiftLatents(2)
    for codec in (StatsQ(3), DenseShift(3, 0, True), DenseShift(3, -1)):
        with pytest.raises(ConfigError, match="ends in DenseShift"):
            DenseShiftLatents().with_codec(codec)
