"""Streaming summaries of what layers see."""

from corank.statistics.base import LayerStatistics, Statistic, need
from corank.statistics.drift import Drift
from corank.statistics.moments import Gram, OutputGradient

__all__ = ["Drift", "Gram", "LayerStatistics", "OutputGradient", "Statistic", "need"]
