"""Products of signs: the same whole numbers by every set of instructions, by PyTorch, and by float."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from corank.errors import ConfigError, CorankWarning
from corank.kernels import INSTRUCTIONS, PackedSigns, instructions, pack_signs, popcount, sign_linear, sign_product
from corank.kernels.build import NotBuiltError

SIZES = [
    (1, 1, 1),
    (1, 64, 8),
    (3, 63, 7),
    (2, 65, 9),
    (5, 200, 17),
    (1, 513, 3),
    (4, 1024, 16),
    (0, 70, 5),
    (3, 70, 0),
]


@pytest.fixture(params=["kernel", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "torch":
        monkeypatch.setattr(popcount, "_library", lambda: None)
    elif popcount._library() is None:
        pytest.skip("no C++ compiler")
    yield request.param


def drawn(samples: int, columns: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(samples + columns + rows)
    inputs, weight, shift = torch.randn(samples, columns), torch.randn(rows, columns), torch.randn(columns)
    inputs[:, ::5], weight[:, ::7], shift[::3] = 0, 0, 0
    return inputs, weight, shift


def by_float(inputs: Tensor, weight: Tensor, shift: Tensor | float) -> Tensor:
    """In float64, with sign(0) = +1."""
    signs = [torch.where(one, 1.0, -1.0).double() for one in (inputs >= shift, weight >= 0)]
    return (signs[0] @ signs[1].T).to(torch.int32)


@pytest.mark.parametrize("size", SIZES)
def test_the_numbers_are_those_of_float(size: tuple[int, int, int], way: str) -> None:
    inputs, weight, shift = drawn(*size)
    packed = pack_signs(weight >= 0)
    assert torch.equal(packed.unpacked(), torch.where(weight >= 0, 1.0, -1.0))
    for level in range(len(INSTRUCTIONS)):
        assert torch.equal(sign_product(inputs, packed, None, level), by_float(inputs, weight, 0))
        assert torch.equal(sign_product(inputs, packed, shift, level), by_float(inputs, weight, shift))
        assert torch.equal(sign_product(inputs, packed, shift[:1], level), by_float(inputs, weight, shift[:1]))


@pytest.mark.parametrize("size", SIZES)
def test_scaled_they_are_rounded_twice(size: tuple[int, int, int], way: str) -> None:
    inputs, weight, shift = drawn(*size)
    packed, factor, bias = pack_signs(weight >= 0), torch.rand(size[2]), torch.randn(size[2])
    whole = sign_product(inputs, packed, shift).float()
    assert torch.equal(sign_linear(inputs, packed, factor, bias, shift), whole * factor + bias)
    assert torch.equal(sign_linear(inputs, packed, factor), sign_product(inputs, packed).float() * factor)


def test_any_layout_and_dtype_of_inputs(way: str) -> None:
    inputs, weight, shift = drawn(6, 130, 10)
    inputs[0, 0], inputs[1, 3], inputs[2, 4] = float("nan"), float("inf"), -float("inf")
    packed, expected = pack_signs(weight >= 0), by_float(inputs, weight, shift)
    assert torch.equal(sign_product(inputs.T.contiguous().T, packed, shift), expected)
    assert torch.equal(sign_product(inputs.double().requires_grad_(), packed, shift.double()), expected)
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(sign_product(inputs.to(dtype), packed, shift), by_float(inputs.to(dtype), weight, shift))


def test_shapes_that_do_not_fit_are_refused(way: str) -> None:
    packed = pack_signs(torch.ones(3, 5, dtype=torch.bool))
    with pytest.raises(ConfigError, match=r"\(samples, 5\)"):
        sign_product(torch.ones(2, 4), packed)
    with pytest.raises(ConfigError, match="shift"):
        sign_product(torch.ones(2, 5), packed, torch.ones(4))
    with pytest.raises(ConfigError, match=r"float32 \(3,\)"):
        sign_linear(torch.ones(2, 5), packed, torch.ones(2))
    with pytest.raises(ConfigError, match=r"float32 \(3,\)"):
        sign_linear(torch.ones(2, 5), packed, torch.ones(3), torch.ones(6)[::2])
    for wrong in (torch.ones(3, 5), torch.ones(5, dtype=torch.bool), torch.ones(2, 0, dtype=torch.bool)):
        with pytest.raises(ConfigError, match="bool"):
            pack_signs(wrong)
    with pytest.raises(ConfigError, match="words"):
        sign_product(torch.ones(2, 5), PackedSigns(packed.words[:, :, :4], 3, 5))


def test_without_a_compiler_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_source: object) -> None:
        raise NotBuiltError("no C++ compiler was found")

    popcount._library.cache_clear()
    monkeypatch.setattr(popcount, "built", missing)
    packed = pack_signs(torch.ones(3, 5, dtype=torch.bool))
    try:
        with pytest.warns(CorankWarning, match="no C\\+\\+ compiler was found"):
            assert sign_product(torch.ones(2, 5), packed).tolist() == [[5] * 3] * 2
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert sign_product(torch.ones(2, 5), packed).tolist() == [[5] * 3] * 2
            assert instructions() == "torch"
    finally:
        popcount._library.cache_clear()
