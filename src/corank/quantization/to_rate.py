"""A rate found for the size of a file: the network is coded again at other rates until the file fits."""

from __future__ import annotations

import math
from collections.abc import Callable

from corank.bisection import bisected
from corank.codecs import RatedLevels
from corank.errors import BudgetError, ConfigError
from corank.layers import PreparedModel
from corank.quantization.encode import CodedModel
from corank.quantization.float_parts import float_parts
from corank.quantization.request import RateForSize
from corank.quantization.template import PlanTemplate
from corank.quantization.to_size import FRAME_BYTES
from corank.sizes import format_size
from corank.storage.bits import packed_bytes
from corank.storage.contents import contents_of, placeholder_layers, predict_bytes
from corank.storage.entropy_coding import encode_contents
from corank.storage.model_record import ModelRecord

__all__ = ["code_to_size", "first_rate"]

_LEAST, _MOST = 0.1, 6.0
_ATTEMPTS, _HALVINGS = 6, 20
_EXCESS = 0.17  # bits that a file takes over a rate of 1; half as many with each bit more, as found on networks
_SPARE = 0.01  # of the size, that may be left over


def first_rate(prepared: PreparedModel, template: PlanTemplate, target: RateForSize) -> float:
    """The highest rate whose file takes about as many bytes as wanted, as far as one can tell before anything is coded.

    Args:
        prepared: the float copy.
        template: whose plan at a rate is looked at.
        target: bytes of the file, and extra bits per weight for adapters.

    Raises:
        BudgetError: where all that is not coded at a rate is too large already. ConfigError: where no layer is.
    """
    least = _expected(prepared, template.at_rate(_LEAST), None)
    if least > target.size:
        plan = template.at_rate(_LEAST).plan(prepared, template.at_rate(_LEAST).recipe.codec.bits)
        shapes = {name: prepared.geometry(name).matrix_shape for name in plan.coded()}
        raise BudgetError(
            f"a file of {format_size(target.size)} is not possible: what has no rate (biases, norms, layers left in "
            f"float or with codes of their own, the header) takes {least} bytes{float_parts(prepared.model, shapes)}"
        )

    def beyond(rate: float) -> bool:
        return _expected(prepared, template.at_rate(rate), target.budget) > target.size

    return round(bisected(_LEAST, _MOST, beyond, _HALVINGS)[0], 3)


def _expected(prepared: PreparedModel, template: PlanTemplate, budget: float | None) -> int:
    """Bytes of the file with the codes that have a rate and ``budget`` extra bits each; None: without them."""
    plan = template.plan(prepared, template.recipe.codec.bits)
    layers = placeholder_layers(prepared, list(plan.coded()))
    total = predict_bytes(prepared, ModelRecord(plan, layers, prepared.folded, prepared.skipped)) + FRAME_BYTES
    rated = {name: layer.codec for name, layer in plan.coded().items() if isinstance(layer.codec, RatedLevels)}
    if not rated:
        raise ConfigError("rate='auto': layers= leaves no layer whose codes could have a rate; leave some out there")
    for name, codec in rated.items():
        count = math.prod(layers[name].shape)
        bits = 0.0 if budget is None else codec.most + _EXCESS * 2 ** (1 - codec.most) + budget
        total += math.ceil(count * bits / 8) - packed_bytes(count, codec.bits)
    return total


def code_to_size(attempt: Callable[[float, int], CodedModel], first: float, size: int, weights: int) -> CodedModel:
    """Codes a copy, measures its file, and again at a rate moved by what is missing, six times at most.

    Between a rate that fits and one that does not the next is interpolated; where less than a hundredth of the size is
    left it is done.

    Args:
        attempt: codes a copy at a rate; attempts are numbered, for their checkpoints.
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
        coded = attempt(rate, number)
        stored = _file_bytes(coded)
        parts = float_parts(coded.model, {name: layer.shape for name, layer in coded.record.layers.items()})
        if stored <= size and stored > fits[1]:
            best = coded
        fits, fails = ((rate, stored), fails) if stored <= size else (fits, (rate, stored))
        if 0 <= size - stored <= _SPARE * size or rate == (_MOST if stored <= size else _LEAST):
            break
        if number and (stored - before[1]) * (rate - before[0]) > 0:
            slope = (stored - before[1]) / (rate - before[0])
        before = (rate, stored)
        wanted = size * (1 - _SPARE / 2)
        rate = _between(fits, fails, wanted) if fits[1] and fails[1] else _within(rate + (wanted - stored) / slope)
        if best is None and number == _ATTEMPTS - 2:
            rate = _LEAST
    if best is None:
        raise BudgetError(
            f"a file of {size} bytes is not possible: at {_LEAST} bits a weight, the lowest rate, it takes {fails[1]}. "
            f"The first and the last layer have four bits more, if not all_layers=True{parts}"
        )
    return best


def _between(fits: tuple[float, int], fails: tuple[float, int], wanted: float) -> float:
    """The rate whose file would have the bytes wanted if they rose evenly between two rates, and not close to either:
    each attempt is to tell something new."""
    share = (wanted - fits[1]) / (fails[1] - fits[1])
    return round(fits[0] + (fails[0] - fits[0]) * min(max(share, 0.1), 0.9), 3)


def _within(rate: float) -> float:
    return round(min(max(rate, _LEAST), _MOST), 3)


def _file_bytes(coded: CodedModel) -> int:
    """Of the file as it will be saved, with a margin for the digits of what is not known yet."""
    return len(encode_contents(coded.record, contents_of(coded.model, coded.record))[0].serialize()) + FRAME_BYTES
