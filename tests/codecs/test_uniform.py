"""Uniform against loops over single numbers, and the properties its docstring promises."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from reference.uniform import levels_of, quantize
from torch import Tensor

from corank.codecs import CODECS, Uniform
from corank.errors import ConfigError
from corank.testing import check_codec

ALL = list(itertools.product(range(1, 9), (False, True)))


@pytest.mark.parametrize(("bits", "symmetric"), ALL)
@pytest.mark.parametrize("group", [0, -1, 5])
def test_conformance(bits: int, symmetric: bool, group: int) -> None:
    check_codec(Uniform(bits, symmetric, group))


@pytest.mark.parametrize("codec", [Uniform(3, range="mse"), Uniform(1, True, range="mse"), Uniform(4, range="std")])
def test_conformance_of_other_ranges(codec: Uniform) -> None:
    check_codec(codec)


def test_registered() -> None:
    assert CODECS["uniform"] is Uniform


@pytest.mark.parametrize(("bits", "symmetric"), ALL)
@pytest.mark.parametrize("group", [0, 4])
def test_equals_loops(bits: int, symmetric: bool, group: int) -> None:
    weight = torch.randn(3, 11) + 0.2
    codebook = Uniform(bits, symmetric, group).fit(weight)
    decoded = codebook.values(codebook.nearest(weight))
    expected = torch.tensor(quantize(weight, bits, symmetric, group or 11))
    assert torch.allclose(decoded, expected, atol=1e-6)


def test_one_scale_for_the_whole_weight() -> None:
    weight = torch.randn(3, 7)
    codebook = Uniform(3, group=-1).fit(weight)
    decoded = codebook.values(codebook.nearest(weight))
    assert codebook.scale.shape == (1, 1)
    assert torch.allclose(decoded.reshape(1, -1), torch.tensor(quantize(weight.reshape(1, -1), 3, False, 21)))


@pytest.mark.parametrize(("bits", "symmetric"), ALL)
def test_values_lie_on_the_grid(bits: int, symmetric: bool) -> None:
    weight = torch.randn(4, 9)
    codebook = Uniform(bits, symmetric).fit(weight)
    steps = codebook.values(codebook.nearest(weight)) / codebook.scale + codebook.offset
    assert torch.allclose(steps, steps.round(), atol=1e-4)
    assert set(steps.round().int().flatten().tolist()) <= set(levels_of(bits, symmetric))


@pytest.mark.parametrize(("bits", "symmetric"), ALL)
@pytest.mark.parametrize("shift", [-3.0, 0.0, 3.0])
def test_minmax_covers_the_range(bits: int, symmetric: bool, shift: float) -> None:
    weight = torch.randn(6, 50) + shift
    codebook = Uniform(bits, symmetric).fit(weight)
    ends = torch.stack([weight.amin(1), weight.amax(1)], 1)
    lost = (codebook.values(codebook.nearest(ends)) - ends).abs()
    if symmetric:  # the end of the larger magnitude is a value, but for the scale's rounding to fp16
        outer = ends.abs().argmax(1, keepdim=True)
        at_end = lost.gather(1, outer) if bits == 1 else lost
        slack = 0.0 if bits == 1 else 0.5
    else:
        at_end, slack = lost, 0.5
    assert bool((at_end <= codebook.scale * (slack + 2**bits * 2.0**-11) + 1e-6).all())


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("range_", ["minmax", "std", "mse"])
@pytest.mark.parametrize("shift", [-5.0, 0.1, 5.0])
def test_zero_is_a_value_when_affine(bits: int, range_: str, shift: float) -> None:
    codebook = Uniform(bits, range=range_).fit(torch.randn(4, 20) + shift)
    zeros = torch.zeros(4, 20)
    assert torch.equal(codebook.values(codebook.nearest(zeros)), zeros)


@pytest.mark.parametrize("range_", ["minmax", "std", "mse"])
@pytest.mark.parametrize("scale", [1e-9, 1e-4, 1.0, 1e3])
def test_scales_are_held_by_fp16(range_: str, scale: float) -> None:
    codebook = Uniform(3, range=range_).fit(torch.randn(4, 20) * scale)
    assert torch.equal(codebook.scale.half().float(), codebook.scale)
    assert bool((codebook.scale > 0).all())
    assert torch.equal(codebook.offset, codebook.offset.round())
    assert int(codebook.offset.min()) >= 0 and int(codebook.offset.max()) <= 7


@pytest.mark.parametrize("symmetric", [False, True])
def test_weights_too_large_for_fp16_scales_stay_finite(symmetric: bool) -> None:
    weight = torch.randn(2, 8) * 1e8
    codebook = Uniform(2, symmetric).fit(weight)
    assert bool(torch.isfinite(codebook.values(codebook.nearest(weight))).all())


@pytest.mark.parametrize(("bits", "symmetric"), ALL)
@pytest.mark.parametrize(("group", "scales"), [(0, 5), (-1, 1), (4, 5 * 4), (13, 5), (100, 5), (1, 65)])
def test_size_is_what_is_counted(bits: int, symmetric: bool, group: int, scales: int) -> None:
    codec = Uniform(bits, symmetric, group)
    codebook = codec.fit(torch.randn(5, 13))
    stored = {name: tensor.numel() for name, tensor in codebook.tensors().items()}
    assert stored == ({"scale": scales} if symmetric else {"scale": scales, "offset": scales})
    counted = 5 * 13 * bits + 16 * scales + (0 if symmetric else bits * scales)
    assert codec.size_bits(5, 13) == counted
    assert 65 * codebook.code_bits + codebook.size_bits == counted


@pytest.mark.parametrize(("bits", "symmetric"), ALL)
@pytest.mark.parametrize("group", [0, -1, 6])
def test_least_error_range_is_no_worse_than_minmax(bits: int, symmetric: bool, group: int) -> None:
    weight = torch.randn(5, 40)
    weight[0, 0] = 9.0

    def lost(range_: str) -> float:
        codebook = Uniform(bits, symmetric, group, range_).fit(weight)
        return float((codebook.values(codebook.nearest(weight)) - weight).square().sum())

    assert lost("mse") <= lost("minmax") * (1 + 1e-6)
    if bits <= 3:
        assert lost("mse") < 0.95 * lost("minmax")


def test_least_error_range_is_near_the_best_of_a_dense_search() -> None:
    weight = torch.randn(1, 200)
    codebook = Uniform(2, symmetric=True, range="mse").fit(weight)
    found = float((codebook.values(codebook.nearest(weight)) - weight).square().sum())
    best = min(
        float(((weight / scale).round().clamp(-2, 1) * scale - weight).square().sum())
        for scale in torch.linspace(0.05, 4, 2000).tolist()
    )
    assert found <= 1.02 * best


def test_std_range_is_the_mean_and_so_many_deviations() -> None:
    weight = torch.randn(2, 1000)
    weight[0, 0] = 50.0
    codebook = Uniform(4, range="std", deviations=2.0).fit(weight)
    deviation, mean = weight.std(1, correction=0), weight.mean(1)
    low = torch.maximum(mean - 2 * deviation, weight.amin(1))
    high = torch.minimum(mean + 2 * deviation, weight.amax(1))
    assert torch.allclose(codebook.scale[:, 0], (high - low) / 15, rtol=1e-3)
    wide = Uniform(4, range="std", deviations=100.0).fit(weight)
    assert torch.equal(wide.scale, Uniform(4).fit(weight).scale)


@pytest.mark.parametrize("range_", ["minmax", "mse"])
def test_one_symmetric_bit_is_plus_or_minus_the_scale(range_: str) -> None:
    weight = torch.randn(3, 10)
    codebook = Uniform(1, symmetric=True, range=range_).fit(weight)
    decoded = codebook.values(codebook.nearest(weight))
    assert torch.equal(decoded, codebook.scale * torch.where(weight > 0, 1.0, -1.0))
    if range_ == "minmax":
        assert torch.allclose(codebook.scale[:, 0], weight.abs().amax(1), rtol=1e-3)
    else:  # the best binary scale is the mean magnitude
        assert torch.allclose(codebook.scale[:, 0], weight.abs().mean(1), rtol=0.02)


@pytest.mark.parametrize("group", [4, 12, 13, 20])
def test_groups_of_columns_are_fitted_apart(group: int) -> None:
    weight = torch.randn(3, 13) * torch.logspace(-3, 1, 13)
    whole = Uniform(3, group=group).fit(weight)
    decoded = whole.values(whole.nearest(weight))
    for start in range(0, 13, group):
        part = weight[:, start : start + group]
        alone = Uniform(3).fit(part)
        assert torch.equal(decoded[:, start : start + group], alone.values(alone.nearest(part)))


@pytest.mark.parametrize("range_", ["minmax", "std", "mse"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_rows_of_zeros_stay_next_to_zero(range_: str, symmetric: bool) -> None:
    weight = torch.randn(3, 8)
    weight[1] = 0
    codebook = Uniform(4, symmetric, range=range_).fit(weight)
    decoded = codebook.values(codebook.nearest(weight))
    assert torch.equal(decoded[1], torch.zeros(8))


def test_codebook_is_rebuilt_from_its_tensors() -> None:
    for codec in (Uniform(3, group=4), Uniform(5, True), Uniform(2, group=-1)):
        weight = torch.randn(3, 10)
        codebook = codec.fit(weight)
        flat = {name: tensor.flatten() for name, tensor in codebook.tensors().items()}
        again = codec.codebook({**flat, "scale": flat["scale"].float()}, 3, 10)
        codes = codebook.nearest(weight)
        assert torch.equal(again.values(codes), codebook.values(codes))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"bits": 0}, "1 to 8"),
        ({"bits": 9}, "1 to 8"),
        ({"bits": 2.5}, "1 to 8"),
        ({"bits": True}, "1 to 8"),
        ({"range": "max"}, "minmax"),
        ({"group": -2}, "group"),
        ({"group": 1.5}, "group"),
        ({"deviations": 0}, "positive"),
        ({"deviations": float("nan")}, "positive"),
    ],
)
def test_bad_settings(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Uniform(**fields)


@pytest.mark.parametrize("bits", range(1, 8))
@pytest.mark.parametrize("group", [0, -1, 5])
@pytest.mark.parametrize("range_", ["minmax", "mse"])
def test_conformance_of_half_offsets(bits: int, group: int, range_: str) -> None:
    check_codec(Uniform(bits, group=group, range=range_, half=True))


@pytest.mark.parametrize("bits", range(1, 8))
def test_half_offsets_are_halves_that_the_file_can_hold(bits: int) -> None:
    codebook = Uniform(bits, range="mse", half=True).fit(torch.randn(40, 30) + 0.3)
    assert torch.equal(codebook.offset * 2, (codebook.offset * 2).round())
    assert bool((codebook.offset * 2 % 2 == 1).any())
    stored = codebook.tensors()["offset"]
    assert codebook.offset_bits == bits + 1 and int(stored.max()) < 2 ** (bits + 1)
    assert torch.equal(stored.float() / 2, codebook.offset)


@pytest.mark.parametrize("bits", range(1, 8))
def test_half_offsets_lose_no_more_than_whole_ones(bits: int) -> None:
    weight = torch.randn(30, 60)
    lost = []
    for half in (False, True):
        codebook = Uniform(bits, range="mse", half=half).fit(weight)
        lost.append((codebook.values(codebook.nearest(weight)) - weight).square().sum(1))
    assert bool((lost[1] <= lost[0] * 1.0001).all())
    if bits == 2:
        assert float(lost[1].sum()) < 0.9 * float(lost[0].sum())


@pytest.mark.parametrize("wrong", [{"bits": 8}, {"symmetric": True}, {"half": 1}])
def test_half_offsets_where_there_are_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="half"):
        Uniform(**{"bits": 2, "half": True, **wrong})


@pytest.mark.parametrize(("bits", "group"), [(2, 0), (3, 8), (4, 0), (3, -1)])
def test_a_range_by_the_output_loses_least_where_inputs_are_large(bits: int, group: int) -> None:
    """Inputs that are not correlated: the error of the output is a sum over columns, each by its input's energy."""
    torch.manual_seed(0)
    weight, energy = torch.randn(12, 32).pow(3), torch.rand(32).pow(4) + 1e-2
    gram = torch.diag(energy)[None]

    def lost(codec: Uniform, known: Tensor | None) -> float:
        book = codec.fit(weight, known)
        return float(((book.values(book.nearest(weight)) - weight).square() * energy).sum())

    plain, aware = (Uniform(bits, group=group, range=how, half=True) for how in ("mse", "output"))
    assert lost(aware, gram) < 0.97 * lost(plain, gram)
    assert lost(aware, None) == lost(plain, None)
    alike = torch.eye(32, dtype=torch.float32)[None] * 7
    for name, tensor in aware.fit(weight, alike).tensors().items():
        assert torch.equal(tensor, plain.fit(weight).tensors()[name])


def test_channel_groups_have_inputs_of_their_own() -> None:
    torch.manual_seed(0)
    weight, grams = torch.randn(6, 16).pow(3), torch.diag_embed(torch.rand(2, 16).pow(4) + 1e-2)
    whole = Uniform(3, range="output").fit(weight, grams)
    for place in (0, 1):
        part = Uniform(3, range="output").fit(weight[3 * place : 3 * place + 3], grams[place : place + 1])
        assert torch.equal(whole.scale[3 * place : 3 * place + 3], part.scale)
