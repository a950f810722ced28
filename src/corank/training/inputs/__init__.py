"""How a layer's inputs train while they are low-bit."""

from corank.registry import Registry
from corank.training.inputs.base import InputStart, InputTraining, TrainableInputs
from corank.training.inputs.channel_weighted import ChannelWeightedInputs
from corank.training.inputs.learned_clip import LearnedClipInputs
from corank.training.inputs.learned_step import LearnedStepInputs
from corank.training.inputs.resolution import ResolutionInputs
from corank.training.inputs.sign import SignInputs

_OWN: dict[str, type[InputTraining]] = {
    "channel-weighted": ChannelWeightedInputs,
    "learned-clip": LearnedClipInputs,
    "learned-step": LearnedStepInputs,
    "resolution": ResolutionInputs,
    "sign": SignInputs,
}
INPUTS: Registry[InputTraining] = Registry("input-training", InputTraining, "corank.input_trainings", _OWN)
"""Ways by the name they have in recipes."""

__all__ = [
    "INPUTS",
    "ChannelWeightedInputs",
    "InputStart",
    "InputTraining",
    "LearnedClipInputs",
    "LearnedStepInputs",
    "ResolutionInputs",
    "SignInputs",
    "TrainableInputs",
]
