"""Budgets given as the size of the saved file."""

from __future__ import annotations

from dataclasses import replace

from corank.adapters import full_rank
from corank.errors import BudgetError
from corank.layers import PreparedModel
from corank.plan import Plan
from corank.quantization.float_parts import BY_PLAN, float_parts
from corank.quantization.template import PlanTemplate
from corank.search import Allocation
from corank.sizes import format_size
from corank.storage.bits import packed_bytes
from corank.storage.contents import placeholder_layers, predict_bytes
from corank.storage.model_record import ModelRecord

__all__ = ["FRAME_BYTES", "bits_for_size", "budget_for_size", "excess_bits", "left_in_float"]

FRAME_BYTES = 32  # a margin: the budget's digits, steps taken and the commonest rank stand in the header, compressed


def left_in_float(prepared: PreparedModel, plan: Plan) -> dict[str, str]:
    """Name to reason of all that stays in float."""
    chosen = (name for name in prepared.targets if name not in plan.coded())
    return {**prepared.skipped, **dict.fromkeys(chosen, BY_PLAN)}


def bits_for_size(prepared: PreparedModel, template: PlanTemplate, size: int, known: ModelRecord) -> int:
    """The widest codes that the codec has, 1 to 8 bits, whose file without adapters fits.

    Args:
        prepared: the float copy.
        template: makes the plan of a width.
        size: bytes of the file.
        known: the run's own names, which its header will have.

    Raises:
        BudgetError: when none does, saying the least and what is in float.
    """
    widths = template.recipe.widths
    for bits in reversed(widths):
        if _bytes_without_adapters(prepared, template, bits, known) <= size - FRAME_BYTES:
            return bits
    least = _bytes_without_adapters(prepared, template, widths[0], known) + FRAME_BYTES
    what = f"{widths[0]}-bit codes and no adapters"
    raise _too_small(size, least, what, _in_float(prepared, template.plan(prepared, widths[0])))


def budget_for_size(prepared: PreparedModel, draft: ModelRecord, size: int) -> float:
    """Extra bits per quantized weight that a file of ``size`` bytes leaves for adapters.

    Raises:
        BudgetError: when the file is too small even without adapters, saying the least and what is in float.
    """
    least = predict_bytes(prepared, draft)
    # In the header ranks are a column, of the bits that the largest takes; each adapter has up to 2 bytes of padding.
    widest = max(full_rank(layer.shape) for layer in draft.layers.values()).bit_length()
    frame = FRAME_BYTES + packed_bytes(len(draft.plan.layers), widest) + 2 * len(draft.layers)
    if least > size - FRAME_BYTES:
        what = f"{draft.bits}-bit codes and no adapters"
        raise _too_small(size, least + FRAME_BYTES, what, _in_float(prepared, draft.plan))
    return max(0, size - least - frame) * 8 / draft.weights


def excess_bits(prepared: PreparedModel, draft: ModelRecord, found: Allocation, size: int) -> int:
    """Bits by which the file with those codecs and ranks would be too large; negative for room that is left."""
    plan = draft.plan.with_codecs(found.codecs).with_ranks(found.ranks)
    return 8 * (predict_bytes(prepared, replace(draft, plan=plan)) + FRAME_BYTES - size)


def _bytes_without_adapters(prepared: PreparedModel, template: PlanTemplate, bits: int, known: ModelRecord) -> int:
    plan = template.plan(prepared, bits)
    layers = placeholder_layers(prepared, list(plan.coded()))
    skipped = left_in_float(prepared, plan)
    return predict_bytes(prepared, replace(known, plan=plan, layers=layers, skipped=skipped, bits=bits))


def _in_float(prepared: PreparedModel, plan: Plan) -> str:
    return float_parts(prepared.model, {name: prepared.geometry(name).matrix_shape for name in plan.coded()})


def _too_small(size: int, least: int, what: str, parts: str) -> BudgetError:
    return BudgetError(
        f"a file of {format_size(size)} is not possible; the smallest with {what} is {format_size(least)} "
        f"({least} bytes){parts}"
    )
