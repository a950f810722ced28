"""Budgets given as the size of the saved file."""

from __future__ import annotations

from dataclasses import replace

from corank.errors import BudgetError
from corank.layers import PreparedModel
from corank.quantization.template import PlanTemplate
from corank.search import Allocation
from corank.sizes import format_size
from corank.storage.contents import placeholder_layers, predict_bytes
from corank.storage.model_record import ModelRecord

__all__ = ["FRAME_BYTES", "bits_for_size", "budget_for_size", "excess_bits"]

FRAME_BYTES = 48  # a margin: ranks and errors in the header take a few digits more or less


def bits_for_size(prepared: PreparedModel, template: PlanTemplate, size: int) -> int:
    """The widest codes that the codec has, 1 to 8 bits, whose file without adapters fits.

    Raises:
        BudgetError: when none does, saying the smallest possible.
    """
    widths = template.recipe.widths
    for bits in reversed(widths):
        if _bytes_without_adapters(prepared, template, bits) <= size - FRAME_BYTES:
            return bits
    least = _bytes_without_adapters(prepared, template, widths[0]) + FRAME_BYTES
    raise _too_small(size, least, f"{widths[0]}-bit codes and no adapters")


def budget_for_size(prepared: PreparedModel, draft: ModelRecord, size: int) -> float:
    """Extra bits per quantized weight that a file of ``size`` bytes leaves for adapters.

    Raises:
        BudgetError: when the file is too small even without adapters, saying the smallest possible.
    """
    least = predict_bytes(prepared, draft)
    # Ranks add up to 12 characters a layer to the plan in the header, and each adapter up to 2 bytes of padding.
    frame = FRAME_BYTES + 14 * len(draft.layers)
    if least > size - FRAME_BYTES:
        raise _too_small(size, least + FRAME_BYTES, f"{draft.bits}-bit codes and no adapters")
    return max(0, size - least - frame) * 8 / draft.weights


def excess_bits(prepared: PreparedModel, draft: ModelRecord, found: Allocation, size: int) -> int:
    """Bits by which the file with those codecs and ranks would be too large; negative for room that is left."""
    plan = draft.plan.with_codecs(found.codecs).with_ranks(found.ranks)
    digits = 2 * len(plan.layers)  # an error in the header may be longer than was reckoned with
    return 8 * (predict_bytes(prepared, replace(draft, plan=plan)) + FRAME_BYTES + digits - size)


def _bytes_without_adapters(prepared: PreparedModel, template: PlanTemplate, bits: int) -> int:
    plan = template.plan(prepared, bits)
    run = ModelRecord(
        plan, placeholder_layers(prepared, list(plan.coded())), prepared.folded, prepared.skipped, bits=bits
    )
    return predict_bytes(prepared, replace(run, preset="nearest", search="UniformRanks"))


def _too_small(size: int, least: int, what: str) -> BudgetError:
    return BudgetError(
        f"a file of {format_size(size)} is not possible; the smallest with {what} is {format_size(least)} "
        f"({least} bytes)"
    )
