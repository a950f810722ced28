"""What the layers see."""

from corank.calibration.collect import collect, collect_gradients
from corank.calibration.layer_rows import NetworksInputs, layer_rows, position_limit
from corank.calibration.layerwise import LayerwisePasses
from corank.calibration.samples import Samples, live_numbers, run, token_ids
from corank.calibration.streamed import StreamedStatistics

__all__ = [
    "LayerwisePasses",
    "NetworksInputs",
    "Samples",
    "StreamedStatistics",
    "collect",
    "collect_gradients",
    "layer_rows",
    "live_numbers",
    "position_limit",
    "run",
    "token_ids",
]
