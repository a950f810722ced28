"""A rate found for the size of a file: the network is coded again at other rates until the file fits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from corank.codecs import RateUniform
from corank.errors import BudgetError, ConfigError
from corank.layers import PreparedModel
from corank.presets import AUTO
from corank.quantization.encode import CodedModel
from corank.quantization.float_parts import float_parts
from corank.quantization.template import PlanTemplate
from corank.quantization.to_size import FRAME_BYTES, format_size, parse_size
from corank.refine import BlockReconstruction, PostTraining, Refinement
from corank.storage.bits import packed_bytes
from corank.storage.contents import contents_of, placeholder_layers, predict_bytes
from corank.storage.entropy_coding import encode_contents
from corank.storage.model_record import ModelRecord

__all__ = ["code_to_size", "first_rate", "room_for"]

_LEAST, _MOST = 0.1, 6.0
_ATTEMPTS, _HALVINGS = 6, 20
_EXCESS = 0.17  # bits that a file takes over a rate of 1; half as many with each bit more, as found on networks
_SPARE = 0.01  # of the size, that may be left over


class Attempt(Protocol):
    """Codes a copy at a rate; attempts are numbered for their checkpoints."""

    def __call__(self, rate: float, number: int) -> CodedModel: ...


def room_for(
    rate: float | str | None, size: int | str | None, tuning: PostTraining
) -> tuple[int | None, int | str | None]:
    """Bytes of the file that a rate is to be found for, None where none is; and the size that is left to keep.

    Raises:
        ConfigError: for "auto" without a size, or with a tuning that moves codes, whose entropy would then be another.
    """
    if rate != AUTO:
        return None, size
    if size is None:
        raise ConfigError("rate='auto' finds the rate for a size; give one: quantize(..., size='70KB', rate='auto')")
    if isinstance(tuning, BlockReconstruction):
        raise ConfigError("rate='auto' measures codes before refinement, and BlockReconstruction moves them")
    if isinstance(tuning, Refinement) and tuning.code_rate:
        raise ConfigError(
            "rate='auto' measures codes before refinement, which must leave them: Refinement(code_rate=0)"
        )
    return parse_size(size), None


def first_rate(prepared: PreparedModel, base_at: Callable[[float], PlanTemplate], size: int, budget: float) -> float:
    """The highest rate whose file takes about ``size`` bytes, as far as one can tell before anything is coded.

    Args:
        prepared: the float copy.
        base_at: the base plan of a rate.
        size: bytes of the file.
        budget: extra bits per weight for adapters.

    Raises:
        BudgetError: where all that is not coded at a rate is too large already. ConfigError: where no layer is.
    """
    least = _expected(prepared, base_at(_LEAST), 0.0, coded=False)
    if least > size:
        plan = base_at(_LEAST)(prepared, base_at(_LEAST).recipe.codec.bits)
        shapes = {name: prepared.geometry(name).matrix_shape for name in plan.coded()}
        raise BudgetError(
            f"a file of {format_size(size)} is not possible: what has no rate (biases, norms, layers left in float or "
            f"with codes of their own, the header) takes {least} bytes{float_parts(prepared.model, shapes)}"
        )
    low, high = _LEAST, _MOST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if _expected(prepared, base_at(middle), budget) > size else (middle, high)
    return round(low, 3)


def _expected(prepared: PreparedModel, base: PlanTemplate, budget: float, coded: bool = True) -> int:
    """Bytes of the file, with or without the codes that have a rate."""
    plan = base(prepared, base.recipe.codec.bits)
    layers = placeholder_layers(prepared, list(plan.coded()))
    total = predict_bytes(prepared, ModelRecord(plan, layers, prepared.folded, prepared.skipped)) + FRAME_BYTES
    rated = {name: layer.codec for name, layer in plan.coded().items() if isinstance(layer.codec, RateUniform)}
    if not rated:
        raise ConfigError("rate='auto': layers= leaves no layer whose codes could have a rate; leave some out there")
    for name, codec in rated.items():
        count = math.prod(layers[name].shape)
        bits = codec.most + _EXCESS * 2 ** (1 - codec.most) + budget if coded else 0.0
        total += math.ceil(count * bits / 8) - packed_bytes(count, codec.bits)
    return total


def code_to_size(attempt: Attempt, first: float, size: int, weights: int) -> CodedModel:
    """Codes a copy, measures its file, and again at a rate moved by what is missing, six times at most.

    Between a rate that fits and one that does not the next is interpolated; where less than a hundredth of the size is
    left it is done.

    Args:
        attempt: codes a copy.
        first: rate to begin with.
        size: bytes that the file may have.
        weights: quantized weights.

    Raises:
        BudgetError: where the lowest rate does not fit either, saying what it takes.
    """
    best: CodedModel | None = None
    fits, fails = (_LEAST, 0), (_MOST, 0)  # rate and bytes; 0 while there is none
    rate, before, parts = first, (first, 0), ""
    slope = weights / 8  # bytes that a bit more takes; then as the last two attempts say
    for number in range(_ATTEMPTS):
        coded = attempt(rate=rate, number=number)
        stored = _file_bytes(coded)
        parts = float_parts(coded.model, {name: layer.shape for name, layer in coded.run.layers.items()})
        if stored <= size and stored > fits[1]:
            best = coded
        fits, fails = ((rate, stored), fails) if stored <= size else (fits, (rate, stored))
        if 0 <= size - stored <= _SPARE * size or rate == (_MOST if stored <= size else _LEAST):
            break
        if number and (stored - before[1]) * (rate - before[0]) > 0:
            slope = (stored - before[1]) / (rate - before[0])
        before = (rate, stored)
        rate = _next(rate, stored, fits, fails, size * (1 - _SPARE / 2), slope)
        if best is None and number == _ATTEMPTS - 2:
            rate = _LEAST
    if best is None:
        raise BudgetError(
            f"a file of {size} bytes is not possible: at {_LEAST} bits a weight, the lowest rate, it takes {fails[1]}. "
            f"The first and the last layer have four bits more, if not all_layers=True{parts}"
        )
    return best


def _next(
    rate: float, stored: int, fits: tuple[float, int], fails: tuple[float, int], wanted: float, slope: float
) -> float:
    """The rate to try next; ``slope`` is bytes for a bit."""
    if fits[1] and fails[1]:
        share = (wanted - fits[1]) / (fails[1] - fits[1])
        return round(fits[0] + (fails[0] - fits[0]) * min(max(share, 0.1), 0.9), 3)
    return round(min(max(rate + (wanted - stored) / slope, _LEAST), _MOST), 3)


def _file_bytes(coded: CodedModel) -> int:
    """Of the file as it will be saved, with a margin for the digits of what is not known yet."""
    return len(encode_contents(coded.run, contents_of(coded.model, coded.run))[0].serialize()) + FRAME_BYTES
