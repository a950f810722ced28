"""What pruning took out of a network."""

from __future__ import annotations

from collections.abc import Mapping

from corank.reports.analyses.view import AnalysisView, Drawing, TableView, notes, reasons
from corank.reports.cells import NOTHING, metric_name, show_bytes, show_loss, show_value
from corank.reports.fields import Record, number, numbers, text
from corank.reports.plots import channels, training

__all__ = ["is_pruning", "pruning_view"]

COLUMNS = ("layer", "before", "after", "kept")
COURSE = "The loss at each step; until channels went they were drawn to zero, then the rest healed."


def is_pruning(run: Record) -> bool:
    """Whether a record is one of ``corank prune``."""
    return bool(_pruned(run))


def pruning_view(run: Record) -> AnalysisView:
    """The view of a record of ``corank prune``."""
    found = _pruned(run)
    course = {"search_history": found.get("history")}
    drawings = []
    if channels.can_draw(found):
        drawings.append(Drawing(lambda: channels.draw(found), channels.describe(found), channels.CAPTION))
    if training.can_draw(course):
        drawings.append(Drawing(lambda: training.draw(course), training.describe(course), COURSE))
    tables = [TableView("Channels", "", COLUMNS, _rows(found))] if channels.can_draw(found) else []
    left = reasons(found, "left")
    if left:
        tables.append(TableView("What keeps all its channels", "", ("layer", "reason"), left, 2))
    return AnalysisView("What was removed?", _verdict(run, found), _cards(run, found), tables, drawings, notes(run))


def _pruned(run: Record) -> Record:
    found = run.get("pruned")
    return found if isinstance(found, Mapping) else {}


def _pair(found: Record, key: str) -> tuple[float, float] | None:
    """What there was before and after."""
    values = numbers(found, key)
    return (values[0], values[1]) if len(values) == 2 and values[0] > 0 else None


def _gone(found: Record, key: str) -> str:
    pair = _pair(found, key)
    return NOTHING if pair is None else f"{100 * (1 - pair[1] / pair[0]):.1f} %"


def _verdict(run: Record, found: Record) -> str:
    work, weights = (_gone(found, key) for key in ("multiply_adds", "parameters"))
    method = text(found, "method", 40)
    said = f"{work} of the multiply-adds and {weights} of the parameters are gone" + (
        f", by {method}." if method else "."
    )
    loss = show_loss(run)
    if not loss:
        return f"{said} Nothing was scored: --eval DATA says what it cost."
    return f"{said} What is left scores {show_value(run, 'quantized_value')} ({metric_name([run])}), {loss}."


def _cards(run: Record, found: Record) -> list[tuple[str, str, str]]:
    metric, work = metric_name([run]), _pair(found, "multiply_adds")
    note = "" if work is None else f"{work[1]:,.0f} of {work[0]:,.0f}"
    return [
        ("whole", show_value(run, "float_value"), metric),
        ("pruned", show_value(run, "quantized_value"), show_loss(run) or metric),
        ("multiply-adds gone", _gone(found, "multiply_adds"), note),
        (
            "in float",
            show_bytes(number(run, "stored_bytes")),
            "" if number(run, "float_bytes") is None else f"from {show_bytes(number(run, 'float_bytes'))}",
        ),
    ]


def _rows(found: Record) -> list[tuple[str, ...]]:
    return [
        (name, f"{before:.0f}", f"{after:.0f}", f"{100 * after / max(before, 1.0):.0f} %")
        for name, before, after in channels.kept_channels(found)
    ]
