"""What the layers see."""

from corank.calibration.collect import collect, collect_gradients
from corank.calibration.samples import Samples, run

__all__ = ["Samples", "collect", "collect_gradients", "run"]
