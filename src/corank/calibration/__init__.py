"""What the layers see."""

from corank.calibration.collect import collect, collect_gradients, position_limit
from corank.calibration.layerwise import LayerwisePasses
from corank.calibration.samples import Samples, live_numbers, run, token_ids
from corank.calibration.streamed import StreamedStatistics

__all__ = [
    "LayerwisePasses",
    "Samples",
    "StreamedStatistics",
    "collect",
    "collect_gradients",
    "live_numbers",
    "position_limit",
    "run",
    "token_ids",
]
