"""How many directions each layer uses, and what is right when the others are dropped."""

from __future__ import annotations

from corank.reports.analyses.view import AnalysisView, Drawing, TableView, notes, reasons
from corank.reports.cells import NOTHING
from corank.reports.fields import Record, entries, layer_name, number, numbers
from corank.reports.plots import directions

__all__ = ["interaction_view"]

COLUMNS = ("layer", "inputs", "used", "that vary")
HELD = 0.95  # of the right answers with all directions


def interaction_view(found: Record) -> AnalysisView:
    """The view of ``corank.analyse(..., what="interaction")``."""
    drawings = []
    if directions.can_draw_curve(found):
        drawings.append(
            Drawing(lambda: directions.draw_curve(found), directions.describe_curve(found), directions.CURVE_CAPTION)
        )
    if directions.can_draw(found):
        drawings.append(Drawing(lambda: directions.draw(found), directions.describe(found), directions.NEEDED_CAPTION))
    share = 100 * (number(found, "energy") or 0.0)
    curve = [
        (f"{100 * kept:.0f} %", f"{one:.1f} %", f"{other:.1f} %")
        for kept, one, other in zip(
            *(numbers(found, key) for key in ("kept", "interaction", "principal")), strict=False
        )
    ]
    return AnalysisView(
        "How many directions does each layer use?", _verdict(found), _cards(found),
        [
            TableView("Right answers", "All layers keep the same share of their directions.",
                      ("kept", "interaction basis", "principal directions"), curve),
            TableView("Layers", f"Directions that have {share:.0f} % of the importance.", COLUMNS,
                      [_row(layer) for layer in entries(found, "layers")]),
        ],
        drawings, notes(found), reasons(found),
    )  # fmt: skip


def _held(found: Record, key: str) -> float | None:
    """The least share of directions with which nearly all that was right still is."""
    kept, right = numbers(found, "kept"), numbers(found, key)
    if not kept or len(kept) != len(right):
        return None
    return next((share for share, value in zip(kept, right, strict=True) if value >= HELD * right[-1]), None)


def _verdict(found: Record) -> str:
    ours, theirs = _held(found, "interaction"), _held(found, "principal")
    if ours is None or theirs is None:
        return "The record holds no curve."
    which = "as many as" if ours == theirs else "fewer than" if ours < theirs else "more than"
    return (
        f"With {100 * ours:.0f} % of its directions in every layer the network keeps {100 * HELD:.0f} % of its "
        f"right answers; that is {which} by principal directions, which need {100 * theirs:.0f} %."
    )


def _cards(found: Record) -> list[tuple[str, str, str]]:
    layers = entries(found, "layers")
    total = sum(number(layer, "inputs") or 0.0 for layer in layers)
    cards = [("layers", str(len(layers)), f"{total:.0f} inputs in all")]
    for key, name in (("interaction", "used"), ("principal", "that vary")):
        own = sum(number(layer, key) or 0.0 for layer in layers)
        cards.append((name, f"{100 * own / total:.0f} %" if total else NOTHING, "of all directions"))
    held = _held(found, "interaction")
    cards.append(
        ("enough", NOTHING if held is None else f"{100 * held:.0f} %", f"for {100 * HELD:.0f} % of the right answers")
    )
    return cards


def _row(layer: Record) -> tuple[str, ...]:
    counts = [number(layer, key) for key in ("inputs", "interaction", "principal")]
    return (layer_name(layer), *(NOTHING if count is None else f"{count:.0f}" for count in counts))
