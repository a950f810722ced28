"""What happens when, while a network trains."""

from corank.registry import Registry
from corank.training.callbacks.base import Callback

_OWN: dict[str, type[Callback]] = {}
CALLBACKS: Registry[Callback] = Registry("callback", Callback, "corank.callbacks", _OWN)
"""Callbacks by the name they have in recipes."""

__all__ = ["CALLBACKS", "Callback"]
