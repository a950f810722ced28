"""What is said of each analysis: a verdict, cards, tables and pictures, from a record that is not trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from corank.reports.analyses.interaction import interaction_view
from corank.reports.analyses.lipschitz import lipschitz_view
from corank.reports.analyses.spectral import spectral_view
from corank.reports.analyses.straight_through import straight_through_view
from corank.reports.analyses.view import AnalysisView, Drawing, TableView, of_analysis, reasons
from corank.reports.fields import Record, text

__all__ = ["AnalysisView", "Drawing", "TableView", "is_analysis", "shown"]

_VIEWS: Mapping[str, Callable[[Record], AnalysisView]] = MappingProxyType(
    {
        "lipschitz": lipschitz_view,
        "spectral": spectral_view,
        "interaction": interaction_view,
        "straight-through": straight_through_view,
    }
)


def is_analysis(run: Record) -> bool:
    """Whether a record is one of an analysis."""
    return bool(of_analysis(run))


def shown(run: Record) -> AnalysisView:
    """The view of an analysis; of one of a later version, its name alone."""
    found = of_analysis(run)
    what = text(found, "what", 40) or "analysis"
    if what not in _VIEWS:
        return AnalysisView(what, f"This version has no page for {what}.", [], [], without_theory=reasons(found))
    return _VIEWS[what](found)
