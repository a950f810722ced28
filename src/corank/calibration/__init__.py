"""What the layers see."""

from corank.calibration.collect import collect, collect_gradients
from corank.calibration.context import Context
from corank.calibration.layer_rows import NetworksInputs, layer_rows, position_limit
from corank.calibration.layerwise import LayerwisePasses
from corank.calibration.samples import Samples, live_numbers, run, token_ids
from corank.calibration.streamed import StreamedStatistics
from corank.calibration.teacher import Teacher, mean_loss, outputs_of

__all__ = [
    "Context",
    "LayerwisePasses",
    "NetworksInputs",
    "Samples",
    "StreamedStatistics",
    "Teacher",
    "collect",
    "collect_gradients",
    "layer_rows",
    "live_numbers",
    "mean_loss",
    "outputs_of",
    "position_limit",
    "run",
    "token_ids",
]
