"""Images for calibration and evaluation, from folders, archives, arrays and Python files."""

from corank.data.images import ImageSet, Source
from corank.data.preprocessing import Preprocessing
from corank.data.resolve import load

__all__ = ["ImageSet", "Preprocessing", "Source", "load"]
