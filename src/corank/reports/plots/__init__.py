"""One file per plot, each with `can_draw` (does the record hold what it shows?) and `draw` (a Figure)."""

from corank.reports.plots import accuracy, course, errors, ranks, spectrum

__all__ = ["accuracy", "course", "errors", "ranks", "spectrum"]
