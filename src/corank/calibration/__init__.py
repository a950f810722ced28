"""What the layers see."""

from corank.calibration.collect import collect, collect_gradients, position_limit
from corank.calibration.lockstep import Lockstep
from corank.calibration.samples import Samples, live_numbers, run

__all__ = ["Lockstep", "Samples", "collect", "collect_gradients", "live_numbers", "position_limit", "run"]
