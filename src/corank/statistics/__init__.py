"""Streaming summaries of what layers see."""

from corank.statistics.base import LayerStatistics, Statistic, need
from corank.statistics.moments import Gram, OutputGradient

__all__ = ["Gram", "LayerStatistics", "OutputGradient", "Statistic", "need"]
