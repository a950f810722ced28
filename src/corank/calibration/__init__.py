"""What the layers see."""

from corank.calibration.augment import augmentation_for, augmented, check_augmentation
from corank.calibration.batches import Batches, Source
from corank.calibration.collect import collect, collect_gradients
from corank.calibration.context import Context
from corank.calibration.labels import following_tokens, inputs_and_labels
from corank.calibration.layer_rows import NetworksInputs, layer_rows, position_limit
from corank.calibration.layerwise import LayerwisePasses
from corank.calibration.norms import reestimate_norms
from corank.calibration.same_inputs import TensorMark, may_share
from corank.calibration.samples import Samples, live_numbers, run, token_ids
from corank.calibration.seeds import generator_of, seed_of
from corank.calibration.streamed import StreamedStatistics
from corank.calibration.teacher import Teacher, mean_loss, outputs_of

__all__ = [
    "Batches",
    "Context",
    "LayerwisePasses",
    "NetworksInputs",
    "Samples",
    "Source",
    "StreamedStatistics",
    "Teacher",
    "TensorMark",
    "augmentation_for",
    "augmented",
    "check_augmentation",
    "collect",
    "collect_gradients",
    "following_tokens",
    "generator_of",
    "inputs_and_labels",
    "layer_rows",
    "live_numbers",
    "may_share",
    "mean_loss",
    "outputs_of",
    "position_limit",
    "reestimate_norms",
    "run",
    "seed_of",
    "token_ids",
]
