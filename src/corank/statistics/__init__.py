"""Streaming summaries of what layers see."""

from corank.statistics.base import LayerStatistics, Statistic, need
from corank.statistics.drift import Drift
from corank.statistics.inputs import InputValues
from corank.statistics.moments import Gram, OutputGradient

__all__ = ["Drift", "Gram", "InputValues", "LayerStatistics", "OutputGradient", "Statistic", "need"]
