"""Streaming summaries of what layers see."""

from corank.statistics.base import LayerStatistics, Statistic, require
from corank.statistics.cross_moments import CrossMoments
from corank.statistics.inputs import InputValues
from corank.statistics.moments import Gram, OutputGradient

__all__ = ["CrossMoments", "Gram", "InputValues", "LayerStatistics", "OutputGradient", "Statistic", "require"]
