"""What happens when, while a network trains."""

from corank.registry import Registry
from corank.training.callbacks.adversarial import Adversarial
from corank.training.callbacks.base import Callback
from corank.training.callbacks.blend import Blend
from corank.training.callbacks.condition_numbers import ConditionNumbers
from corank.training.callbacks.confidence import Confidence
from corank.training.callbacks.layer_by_layer import LayerByLayer
from corank.training.callbacks.meters import Meters
from corank.training.callbacks.operator_norms import OperatorNorms
from corank.training.callbacks.positive_rows import PositiveRows
from corank.training.callbacks.random_bias import RandomBias
from corank.training.callbacks.relax import Relax
from corank.training.callbacks.sparsify import Sparsify
from corank.training.callbacks.steepen import Steepen
from corank.training.callbacks.tensorboard import TensorBoard

_OWN: dict[str, type[Callback]] = {
    "adversarial": Adversarial,
    "blend": Blend,
    "condition-numbers": ConditionNumbers,
    "confidence": Confidence,
    "layer-by-layer": LayerByLayer,
    "meters": Meters,
    "operator-norms": OperatorNorms,
    "positive-rows": PositiveRows,
    "random-bias": RandomBias,
    "relax": Relax,
    "sparsify": Sparsify,
    "steepen": Steepen,
}
CALLBACKS: Registry[Callback] = Registry("callback", Callback, "corank.callbacks", _OWN)
"""Callbacks by the name they have in recipes."""

__all__ = [
    "CALLBACKS",
    "Adversarial",
    "Blend",
    "Callback",
    "ConditionNumbers",
    "Confidence",
    "LayerByLayer",
    "Meters",
    "OperatorNorms",
    "PositiveRows",
    "RandomBias",
    "Relax",
    "Sparsify",
    "Steepen",
    "TensorBoard",
]
