"""How a supernet was trained, and what there is to choose in it."""

from __future__ import annotations

from collections.abc import Mapping

from corank.reports.analyses.view import AnalysisView, Drawing, TableView
from corank.reports.cells import NOTHING
from corank.reports.fields import Record, clean, entries, number, numbers
from corank.reports.plots import training

__all__ = ["is_supernet", "supernet_view"]

COURSE = "Loss over the subnets of each step, and of the largest alone."


def is_supernet(run: Record) -> bool:
    """Whether a record is one of ``corank supernet train``."""
    return bool(_supernet(run))


def supernet_view(run: Record) -> AnalysisView:
    """The view of a record of ``corank supernet train``."""
    found = _supernet(run)
    drawings = []
    if training.can_draw(run):
        drawings.append(Drawing(lambda: training.draw(run), training.describe(run), COURSE))
    rows = _choices(found)
    tables = [TableView("What there is to choose", "", ("choice", "values"), rows, 2)] if rows else []
    return AnalysisView("One network that holds many", _verdict(found, rows), _cards(run, found), tables, drawings)


def _supernet(run: Record) -> Record:
    found = run.get("supernet")
    return found if isinstance(found, Mapping) else {}


def _verdict(found: Record, rows: list[tuple[str, ...]]) -> str:
    inherited = number(found, "inherited")
    began = "float" if inherited is None else f"the supernet of {inherited:g} bits, each step doubled for each bit less"
    choices = f" {len(rows)} choices are left open." if rows else ""
    return f"A supernet {_at(found)}, begun from {began}.{choices} corank supernet search says which are worth it."


def _at(found: Record) -> str:
    bits = number(found, "bits")
    return "in float" if bits is None else f"at {bits:g} bits"


def _cards(run: Record, found: Record) -> list[tuple[str, str, str]]:
    steps = entries(run, "search_history")
    last = number(steps[-1], "largest") if steps else None
    bits, count, seconds = number(found, "bits"), number(found, "iterations"), number(run, "seconds")
    return [
        ("bits", "float" if bits is None else f"{bits:g}", "of weights and inputs"),
        ("steps", NOTHING if count is None else f"{count:,.0f}", "each of several subnets"),
        ("loss", NOTHING if last is None else f"{last:.3f}", "of the largest, at the last step"),
        ("time", NOTHING if seconds is None else f"{seconds:,.1f} s", ""),
    ]


def _choices(found: Record) -> list[tuple[str, ...]]:
    given = found.get("choices")
    named = given if isinstance(given, Mapping) else {}
    pairs = [(clean(str(name), 80), numbers(named, name)) for name in named]
    return [(name, ", ".join(f"{value:g}" for value in values)) for name, values in pairs if values]
