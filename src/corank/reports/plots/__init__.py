"""One file per plot: `can_draw` (does the record hold what it shows?), `draw` (a Figure), `describe` (in words)."""

from corank.reports.plots import (
    accuracy,
    bits,
    codes,
    course,
    errors,
    ranks,
    refinement,
    size,
    spectrum,
    training,
    weights,
)

__all__ = [
    "accuracy",
    "bits",
    "codes",
    "course",
    "errors",
    "ranks",
    "refinement",
    "size",
    "spectrum",
    "training",
    "weights",
]
