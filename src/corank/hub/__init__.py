"""Quantized models on the Hugging Face Hub, or in a folder of the same form.

A repository holds ``corank.safetensors``, ``config.json`` (plain facts for a reader; nothing of it is executed) and
``README.md``, the model card. The network's code is not in it: whoever loads it brings it, as with :func:`corank.load`.
"""

from corank.hub.card import Card
from corank.hub.repository import from_pretrained, push_to_hub, save_pretrained

__all__ = ["Card", "from_pretrained", "push_to_hub", "save_pretrained"]
