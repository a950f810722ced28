"""How a weight trains while its codes are low-bit."""

from corank.registry import Registry
from corank.training.weights.base import STARTS, TrainableWeight, WeightStart, WeightTraining, straight_through
from corank.training.weights.centred_signs import CentredSigns
from corank.training.weights.compander import Compander
from corank.training.weights.dense_shift import DenseShiftLatents
from corank.training.weights.direct_levels import DirectLevels
from corank.training.weights.dorefa import DoReFa
from corank.training.weights.learned_step import LearnedStep
from corank.training.weights.parq import Parq
from corank.training.weights.relaxed import Relaxed
from corank.training.weights.s3_shift import S3Latents
from corank.training.weights.scales import Scales
from corank.training.weights.straight_through import StraightThrough

_OWN: dict[str, type[WeightTraining]] = {
    "centred-signs": CentredSigns,
    "compander": Compander,
    "dense-shift": DenseShiftLatents,
    "direct-levels": DirectLevels,
    "dorefa": DoReFa,
    "learned-step": LearnedStep,
    "parq": Parq,
    "relaxed": Relaxed,
    "s3": S3Latents,
    "scales": Scales,
    "straight-through": StraightThrough,
}
WEIGHTS: Registry[WeightTraining] = Registry("weight-training", WeightTraining, "corank.weight_trainings", _OWN)
"""Ways by the name they have in recipes."""

__all__ = [
    "STARTS",
    "WEIGHTS",
    "CentredSigns",
    "Compander",
    "DenseShiftLatents",
    "DirectLevels",
    "DoReFa",
    "LearnedStep",
    "Parq",
    "Relaxed",
    "S3Latents",
    "Scales",
    "StraightThrough",
    "TrainableWeight",
    "WeightStart",
    "WeightTraining",
    "straight_through",
]
