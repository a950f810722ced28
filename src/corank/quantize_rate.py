"""A rate found for the size of a file: layers are coded again at other rates until the file fits."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from torch import nn

from corank.apply import CodedResult
from corank.checkpoint import Checkpoint
from corank.codecs import RateUniform
from corank.errors import BudgetError, ConfigError
from corank.layers import Prepared
from corank.plan import Plan
from corank.presets import AUTO
from corank.quantize_plan import BasePlan
from corank.quantize_size import FRAME_BYTES, format_size, parse_size
from corank.refine import Refinement, Tuning
from corank.storage.bits import packed_bytes
from corank.storage.coding import encode_contents
from corank.storage.contents import contents_of, placeholder_layers, predict_bytes
from corank.storage.run import Run

__all__ = ["Coded", "code_to_size", "first_rate", "room_for"]

_LEAST, _MOST = 0.1, 6.0
_ATTEMPTS, _HALVINGS = 6, 20
_EXCESS = 1.03  # coded bytes over the entropy asked for, as found on networks
_SPARE = 0.01  # of the size, that may be left over


class Coding(Protocol):
    """Codes a prepared copy in place by a plan."""

    def __call__(self, prepared: Prepared, plan: Plan, *, checkpoint: Checkpoint) -> dict[str, CodedResult]: ...


@dataclass(frozen=True)
class Coded:
    """A model whose layers are coded.

    Attributes:
        model: it.
        plan: that it was coded by.
        results: of the layers.
        size: bytes of its file, where they were measured.
    """

    model: nn.Module
    plan: Plan
    results: dict[str, CodedResult]
    size: int = 0


def room_for(rate: float | str | None, size: int | str | None, tuning: Tuning) -> tuple[int | None, int | str | None]:
    """Bytes of the file that a rate is to be found for, None where none is; and the size that is left to keep.

    Raises:
        ConfigError: for "auto" without a size, or with a tuning that moves codes, whose entropy would then be another.
    """
    if rate != AUTO:
        return None, size
    if size is None:
        raise ConfigError("rate='auto' finds the rate for a size; give one: quantize(..., size='70KB', rate='auto')")
    if not isinstance(tuning, Refinement) or tuning.code_rate:
        raise ConfigError(
            "rate='auto' measures codes before refinement, which must leave them: Refinement(code_rate=0)"
        )
    return parse_size(size), None


def first_rate(prepared: Prepared, base_at: Callable[[float], BasePlan], size: int) -> float:
    """The highest rate whose file, as far as one can tell before anything is coded, takes ``size`` bytes.

    Args:
        prepared: the float copy.
        base_at: the base plan of a rate.
        size: bytes of the file.

    Raises:
        BudgetError: where even the lowest rate takes more, saying how much.
    """

    def expected(rate: float) -> int:
        base = base_at(rate)
        plan = base(prepared, base.recipe.codec.bits)
        layers = placeholder_layers(prepared, list(plan.coded()))
        total = predict_bytes(prepared, Run(plan, layers, prepared.folded, prepared.skipped))
        for name, layer in plan.coded().items():
            if isinstance(layer.codec, RateUniform):
                count = math.prod(layers[name].shape)
                total += math.ceil(count * layer.codec.most * _EXCESS / 8) - packed_bytes(count, layer.codec.bits)
        return total + FRAME_BYTES

    if expected(_LEAST) > size:
        raise BudgetError(
            f"a file of {format_size(size)} is not possible; the smallest, at {_LEAST} bits a weight, takes about "
            f"{format_size(expected(_LEAST))}"
        )
    low, high = _LEAST, _MOST
    for _ in range(_HALVINGS if expected(_MOST) > size else 0):
        middle = (low + high) / 2
        low, high = (low, middle) if expected(middle) > size else (middle, high)
    return round(low if expected(_MOST) > size else _MOST, 3)


def code_to_size(
    prepared: Prepared, draft: Run, plan: Plan, free: Collection[str], size: int | None, code: Coding, kept: Checkpoint
) -> Coded:
    """Codes a copy, measures its file, and again at rates moved by what is missing: at most six times.

    Args:
        prepared: the float copy; it stays as it is, where there is a size.
        draft: the run so far.
        plan: with the rates of the first attempt.
        free: the layers whose rates move, as far as they have :class:`~corank.codecs.RateUniform` codes.
        size: bytes that the file may have; None codes ``prepared`` itself by the plan.
        code: codes a copy.
        kept: keeps the layers of every attempt.

    Raises:
        BudgetError: where no attempt fits, saying the smallest.
    """
    if size is None:
        return Coded(prepared.model, plan, code(prepared, plan, checkpoint=kept))
    best: Coded | None = None
    rated = {name: layer.codec for name, layer in plan.coded().items() if name in free}
    rates = {name: codec for name, codec in rated.items() if isinstance(codec, RateUniform)}
    weights = sum(draft.layers[name].weights for name in rates)
    slope = weights / 8  # bytes that one bit more takes; then as the last two attempts say
    tried: list[tuple[float, int]] = []
    moved = 0.0
    for number in range(_ATTEMPTS):
        attempt = plan.with_codecs(_moved(rates, moved))
        copied = copy.deepcopy(prepared)
        results = code(copied, attempt, checkpoint=kept.within(f"attempt-{number}"))
        stored = _file_bytes(copied, draft, attempt, results)
        if stored <= size and (best is None or stored > best.size):
            best = Coded(copied.model, attempt, results, stored)
        tried.append((moved, stored))
        if len(tried) > 1 and (tried[-1][1] - tried[-2][1]) * (tried[-1][0] - tried[-2][0]) > 0:
            slope = (tried[-1][1] - tried[-2][1]) / (tried[-1][0] - tried[-2][0])
        moved += (size * (1 - _SPARE / 2) - stored) / max(1.0, slope)
        if 0 <= size - stored <= _SPARE * size or plan.with_codecs(_moved(rates, moved)) == attempt:
            break
    if best is None:
        raise BudgetError(
            f"a file of {format_size(size)} was not reached; the smallest tried takes "
            f"{min(stored for _, stored in tried)} bytes"
        )
    return best


def _moved(rates: Mapping[str, RateUniform], by: float) -> dict[str, RateUniform]:
    """Every rate higher by so much, as far as codes and rates go."""
    return {
        name: replace(codec, rate=round(min(max(codec.most + by, _LEAST), codec.bits - 0.5, _MOST), 3))
        for name, codec in rates.items()
    }


def _file_bytes(prepared: Prepared, draft: Run, plan: Plan, results: dict[str, CodedResult]) -> int:
    """Of the file as it will be saved, with a margin for the digits of what is not known yet."""
    layers = {
        name: replace(draft.layers[name], relative_output_error=result.relative_output_error)
        for name, result in results.items()
    }
    run = replace(draft, plan=plan, layers=layers)
    return len(encode_contents(run, contents_of(prepared.model, run))[0].serialize()) + FRAME_BYTES
