"""What happens when, while a network trains."""

from corank.registry import Registry
from corank.training.callbacks.base import Callback
from corank.training.callbacks.layer_by_layer import LayerByLayer
from corank.training.callbacks.random_bias import RandomBias

_OWN: dict[str, type[Callback]] = {
    "layer-by-layer": LayerByLayer,
    "random-bias": RandomBias,
}
CALLBACKS: Registry[Callback] = Registry("callback", Callback, "corank.callbacks", _OWN)
"""Callbacks by the name they have in recipes."""

__all__ = ["CALLBACKS", "Callback", "LayerByLayer", "RandomBias"]
