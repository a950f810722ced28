"""Budgets given as the size of the saved file."""

from __future__ import annotations

import re
from dataclasses import replace

from corank.errors import BudgetError, ConfigError
from corank.layers import PreparedModel
from corank.plan import Plan
from corank.quantization.float_parts import float_parts, format_size
from corank.quantization.template import PlanTemplate
from corank.storage.contents import placeholder_layers, predict_bytes
from corank.storage.model_record import ModelRecord

__all__ = ["FRAME_BYTES", "MOST_EXTRA_BITS", "bits_for_size", "budget_for_size", "format_size", "parse_size"]

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
FRAME_BYTES = 48  # a margin: ranks and errors in the header take a few digits more or less


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


def bits_for_size(prepared: PreparedModel, base: PlanTemplate, size: int) -> int:
    """The widest codes that the codec has, 1 to 8 bits, whose file without adapters fits.

    Raises:
        BudgetError: when none does, saying the least and what is in float.
    """
    widths = base.recipe.widths
    for bits in reversed(widths):
        if _bytes_without_adapters(prepared, base, bits) <= size - FRAME_BYTES:
            return bits
    least = _bytes_without_adapters(prepared, base, widths[0]) + FRAME_BYTES
    what = f"{widths[0]}-bit codes and no adapters"
    raise _too_small(size, least, what, _in_float(prepared, base(prepared, widths[0])))


def budget_for_size(prepared: PreparedModel, draft: ModelRecord, size: int) -> float:
    """Extra bits per quantized weight that a file of ``size`` bytes leaves for adapters.

    Raises:
        BudgetError: when the file is too small even without adapters, saying the least and what is in float.
    """
    least = predict_bytes(prepared, draft)
    # Ranks add up to 12 characters a layer to the plan in the header, and each adapter up to 2 bytes of padding.
    frame = FRAME_BYTES + 14 * len(draft.layers)
    if least > size - FRAME_BYTES:
        what = f"{draft.bits}-bit codes and no adapters"
        raise _too_small(size, least + FRAME_BYTES, what, _in_float(prepared, draft.plan))
    return max(0, size - least - frame) * 8 / draft.weights


def _bytes_without_adapters(prepared: PreparedModel, base: PlanTemplate, bits: int) -> int:
    plan = base(prepared, bits)
    run = ModelRecord(
        plan, placeholder_layers(prepared, list(plan.coded())), prepared.folded, prepared.skipped, bits=bits
    )
    return predict_bytes(prepared, replace(run, preset="nearest", search="UniformRanks"))


def _in_float(prepared: PreparedModel, plan: Plan) -> str:
    return float_parts(prepared.model, {name: prepared.geometry(name).matrix_shape for name in plan.coded()})


def _too_small(size: int, least: int, what: str, parts: str) -> BudgetError:
    return BudgetError(
        f"a file of {format_size(size)} is not possible; the smallest with {what} is {format_size(least)} "
        f"({least} bytes){parts}"
    )
