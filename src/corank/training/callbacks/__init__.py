"""What happens when, while a network trains."""

from corank.registry import Registry
from corank.training.callbacks.base import Callback
from corank.training.callbacks.confidence import Confidence
from corank.training.callbacks.meters import Meters
from corank.training.callbacks.tensorboard import TensorBoard

_OWN: dict[str, type[Callback]] = {
    "confidence": Confidence,
    "meters": Meters,
}
CALLBACKS: Registry[Callback] = Registry("callback", Callback, "corank.callbacks", _OWN)
"""Callbacks by the name they have in recipes."""

__all__ = ["CALLBACKS", "Callback", "Confidence", "Meters", "TensorBoard"]
