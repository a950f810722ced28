"""What is said of each analysis, a pruning and a supernet: a verdict, cards, tables and pictures, from a record that is
not trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from corank.reports.analyses.interaction import interaction_view
from corank.reports.analyses.lipschitz import lipschitz_view
from corank.reports.analyses.pruning import is_pruning, pruning_view
from corank.reports.analyses.spectral import spectral_view
from corank.reports.analyses.straight_through import straight_through_view
from corank.reports.analyses.supernet import is_supernet, supernet_view
from corank.reports.analyses.view import AnalysisView, Drawing, TableView, of_analysis, reasons
from corank.reports.fields import Record, text

__all__ = ["AnalysisView", "Drawing", "TableView", "is_analysis", "is_compared", "is_told", "shown"]

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


def is_compared(run: Record) -> bool:
    """Whether a record is one of a network with a file and a score, which others can be compared with."""
    return not is_analysis(run) and not is_supernet(run)


def is_told(run: Record) -> bool:
    """Whether a record has a view of its own, and is not one of a network quantized."""
    return is_analysis(run) or is_pruning(run) or is_supernet(run)


def shown(run: Record) -> AnalysisView:
    """The view of an analysis, a pruning or a supernet; of an analysis of a later version, its name alone."""
    found = of_analysis(run)
    what = text(found, "what", 40) or "analysis"
    if not found:
        return pruning_view(run) if is_pruning(run) else supernet_view(run)
    if what not in _VIEWS:
        return AnalysisView(what, f"This version has no page for {what}.", [], [], without_theory=reasons(found))
    return _VIEWS[what](found)
