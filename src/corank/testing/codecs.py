"""What every codec and its codebook must do."""

from __future__ import annotations

import torch
from torch import Tensor

from corank.codecs import Codebook, Codec, RowLevels, ScalarCodebook
from corank.config import from_json, to_json
from corank.errors import ConfigError

__all__ = ["check_codec"]


def check_codec(codec: Codec) -> None:
    """Fits ``codec`` to weights of many kinds and checks what :class:`~corank.codecs.Codec` promises.

    Raises:
        AssertionError: naming the weight and what does not hold.
    """
    hash(codec)
    table: dict[str, type[Codec]] = {"checked": type(codec)}
    assert from_json(to_json(codec, table), table, "codec") == codec, "plain JSON and back gives another codec"
    for name, weight in _weights().items():
        before = weight.clone()
        codebook = codec.fit(weight)
        again = codec.fit(weight)
        assert torch.equal(weight, before), f"{name}: fit() changed the weight"
        _check_fitted(f"{codec}, {name}", codec, codebook, weight)
        for key, tensor in codebook.tensors().items():
            assert torch.equal(tensor, again.tensors()[key]), f"{name}: fitting twice gives two codebooks"
            assert bool(torch.isfinite(tensor.float()).all()), f"{name}: the stored {key} is not finite"
    _check_refusals(codec)


def _weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    normal = torch.randn(5, 23, generator=generator) * 0.1
    outlier = normal.clone()
    outlier[2, 7] = 40.0
    empty_row = normal.clone()
    empty_row[1] = 0
    return {
        "normal": normal,
        "one outlier": outlier,
        "a row of zeros": empty_row,
        "all zeros": torch.zeros(2, 5),
        "one sign": normal.abs() + 0.5,
        "one column": normal[:, :1].contiguous(),
        "one row": normal[:1],
        "one weight": torch.tensor([[0.3]]),
        "constant": torch.full((2, 6), -0.25),
        "large": normal * 1e3,
        "small": normal * 1e-4,
        "the largest": torch.where(normal == outlier, normal, 6e4),
        "below fp16": normal * 1e-9,
        "denormal": normal * 1e-41,
        "one denormal": torch.zeros(3, 7).index_fill_(1, torch.tensor([2]), 1e-42),
        "half precision": normal.half(),
    }


def _check_fitted(name: str, codec: Codec, codebook: Codebook, weight: Tensor) -> None:
    codes = codebook.nearest(weight)
    assert codes.dtype == torch.uint8 and codes.shape == weight.shape, f"{name}: codes are uint8 (R, C)"
    assert codebook.code_bits == codec.bits, f"{name}: code_bits is not the codec's bits"
    assert codebook.size <= 1 << codec.bits, f"{name}: {codebook.size} values do not fit in {codec.bits} bits"
    assert int(codes.max()) < codebook.size, f"{name}: a code has no value"
    counted = codes.numel() * codebook.code_bits + codebook.size_bits
    most, codec = codec.size_bits(*weight.shape), codec.with_measured_size(codebook)
    promised = codec.size_bits(*weight.shape)
    assert promised <= most, f"{name}: size_bits() promises {most} before the fit and {promised} after it"
    assert promised == counted, f"{name}: size_bits() promises {promised}, codes and codebook take {counted}"
    values = codebook.values(codes)
    assert values.dtype == torch.float32 and values.shape == weight.shape, f"{name}: values are float32 (R, C)"
    assert bool(torch.isfinite(values).all()), f"{name}: a value is not finite"
    assert torch.equal(codebook.values(codebook.nearest(values)), values), f"{name}: a value is not its own nearest"
    assert torch.equal(codebook.rounded(weight), values), f"{name}: rounded() gives other values than nearest()"
    if not (isinstance(codebook, (ScalarCodebook, RowLevels)) and codebook.thresholds is not None):
        _check_closest(name, codebook, weight.float(), values)
    _check_stored(name, codec, codebook, codes)
    _check_neighbours(name, codebook, weight.float())
    _check_columns(name, codebook, weight.float(), codes)


def _check_stored(name: str, codec: Codec, codebook: Codebook, codes: Tensor) -> None:
    tensors, slots = codebook.tensors(), codec.stored(*codes.shape)
    assert list(tensors) == list(slots), f"{name}: tensors() and stored() name different things"
    for key, slot in slots.items():
        tensor = tensors[key]
        assert tensor.numel() == slot.count, f"{name}: {key} has {tensor.numel()} numbers, not {slot.count}"
        assert tensor.dtype == (torch.float16 if slot.scale else torch.uint8), f"{name}: {key} is {tensor.dtype}"
        assert slot.scale or int(tensor.max()) < 1 << slot.bits, f"{name}: {key} does not fit in {slot.bits} bits"
    flat = {key: tensor.float().flatten() if slots[key].scale else tensor.flatten() for key, tensor in tensors.items()}
    codec.check({key: flat[key] for key in codec.checked_tensors if key in flat}, *codes.shape)
    again = codec.codebook(flat, *codes.shape)
    assert torch.equal(again.values(codes), codebook.values(codes)), f"{name}: read back, the values differ"
    assert again.size == codebook.size, f"{name}: read back, there are {again.size} values, not {codebook.size}"


def _check_closest(name: str, codebook: Codebook, weight: Tensor, values: Tensor) -> None:
    error = (weight - values).abs()
    for code in range(codebook.size):
        other = (weight - codebook.values(torch.full(weight.shape, code, dtype=torch.uint8))).abs()
        slack = 1e-5 * (weight.abs() + values.abs())
        assert bool((error <= other + slack).all()), f"{name}: code {code} is closer than nearest()"


def _check_neighbours(name: str, codebook: Codebook, weight: Tensor) -> None:
    below, above = (codebook.values(codes) for codes in codebook.neighbours(weight))
    nearest = codebook.values(codebook.nearest(weight))
    lowest, highest = torch.minimum(below, nearest), torch.maximum(above, nearest)
    assert torch.equal(lowest, below) and torch.equal(highest, above), f"{name}: nearest() is no neighbour"
    slack = 1e-5 * (weight.abs() + 1e-6)
    outside = below == above
    bracketed = (below <= weight + slack) & (weight <= above + slack)
    assert bool((bracketed | outside).all()), f"{name}: neighbours() do not bracket the weight"


def _check_columns(name: str, codebook: Codebook, weight: Tensor, codes: Tensor) -> None:
    generator = torch.Generator().manual_seed(2)
    order = torch.randperm(weight.shape[1], generator=generator)
    for index in (order, order[:1], order[: max(1, len(order) // 2)]):
        part = codebook.columns(index)
        assert torch.equal(part.nearest(weight[:, index]), codes[:, index]), f"{name}: columns() picks other codes"
        expected = codebook.values(codes)[:, index]
        assert torch.equal(part.values(codes[:, index]), expected), f"{name}: columns() gives other values"


def _check_refusals(codec: Codec) -> None:
    bad = {
        "NaN": torch.tensor([[0.0, float("nan")]]),
        "infinite": torch.tensor([[0.0, float("inf")]]),
        "one-dimensional": torch.ones(4),
        "empty": torch.ones(0, 4),
        "integer": torch.ones(2, 2, dtype=torch.int32),
    }
    for name, weight in bad.items():
        try:
            codec.fit(weight)
        except ConfigError:
            continue
        raise AssertionError(f"{codec}: a weight that is {name} was taken")
