"""Budgets given as the size of the saved file."""

from __future__ import annotations

import re
from dataclasses import replace

from corank.adapters import full_rank
from corank.errors import BudgetError, ConfigError
from corank.layers import PreparedModel
from corank.plan import Plan
from corank.quantization.template import PlanTemplate
from corank.storage.bits import packed_bytes
from corank.storage.contents import placeholder_layers, predict_bytes
from corank.storage.model_record import ModelRecord

__all__ = [
    "FRAME_BYTES",
    "MOST_EXTRA_BITS",
    "bits_for_size",
    "budget_for_size",
    "format_size",
    "left_in_float",
    "parse_size",
]

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KIB": 1024,
    "MIB": 1024**2,
    "GIB": 1024**3,
}
MOST_EXTRA_BITS = 32  # a weight, of all adapters
FRAME_BYTES = 32  # a margin: the budget's digits, steps taken and the commonest rank stand in the header, compressed


def parse_size(size: int | str) -> int:
    """Bytes of ``120000``, "120KB" or "1.2 MB" (1 KB is 1000 bytes).

    Raises:
        ConfigError: for anything else.
    """
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", size) if isinstance(size, str) else None
    if found is None or found[2].upper() not in _UNITS or not 0 < float(found[1]) < 1e15:
        raise ConfigError(f"size={size!r}: give bytes or a text like '1.2MB' or '95KB' (1 KB is 1000 bytes)")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def format_size(size: int) -> str:
    """A size for a person: "83.1 KB"."""
    for unit, factor in (("GB", 1000**3), ("MB", 1000**2), ("KB", 1000)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def left_in_float(prepared: PreparedModel, plan: Plan) -> dict[str, str]:
    """Name to reason of all that stays in float."""
    chosen = (name for name in prepared.targets if name not in plan.coded())
    return {**prepared.skipped, **dict.fromkeys(chosen, "the plan leaves it in float")}


def bits_for_size(prepared: PreparedModel, base: PlanTemplate, size: int, known: ModelRecord) -> int:
    """The widest codes that the codec has, 1 to 8 bits, whose file without adapters fits.

    Args:
        prepared: the float copy.
        base: the plan of a width.
        size: bytes of the file.
        known: the run's own names, which its header will have.

    Raises:
        BudgetError: when none does, saying the smallest possible.
    """
    widths = base.recipe.widths
    for bits in reversed(widths):
        if _bytes_without_adapters(prepared, base, bits, known) <= size - FRAME_BYTES:
            return bits
    least = _bytes_without_adapters(prepared, base, widths[0], known) + FRAME_BYTES
    raise _too_small(size, least, f"{widths[0]}-bit codes and no adapters")


def budget_for_size(prepared: PreparedModel, draft: ModelRecord, size: int) -> float:
    """Extra bits per quantized weight that a file of ``size`` bytes leaves for adapters.

    Raises:
        BudgetError: when the file is too small even without adapters, saying the smallest possible.
    """
    least = predict_bytes(prepared, draft)
    # In the header ranks are a column, of the bits that the largest takes; each adapter has up to 2 bytes of padding.
    widest = max(full_rank(layer.shape) for layer in draft.layers.values()).bit_length()
    frame = FRAME_BYTES + packed_bytes(len(draft.plan.layers), widest) + 2 * len(draft.layers)
    if least > size - FRAME_BYTES:
        raise _too_small(size, least + FRAME_BYTES, f"{draft.bits}-bit codes and no adapters")
    return max(0, size - least - frame) * 8 / draft.weights


def _bytes_without_adapters(prepared: PreparedModel, base: PlanTemplate, bits: int, known: ModelRecord) -> int:
    plan = base(prepared, bits)
    layers = placeholder_layers(prepared, list(plan.coded()))
    return predict_bytes(
        prepared, replace(known, plan=plan, layers=layers, skipped=left_in_float(prepared, plan), bits=bits)
    )


def _too_small(size: int, least: int, what: str) -> BudgetError:
    return BudgetError(
        f"a file of {format_size(size)} is not possible; the smallest with {what} is {format_size(least)} "
        f"({least} bytes)"
    )
