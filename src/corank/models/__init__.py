"""Models from a reference, with their weights and preprocessing."""

from corank.models.binary_vit import BinaryViT, BinaryViTShape
from corank.models.loader import LoadedModel, Loader, Request
from corank.models.resolve import LOADERS, ResolvedModel, resolve
from corank.models.speech_resnet import SpeechResNet
from corank.models.weights import load_weights

__all__ = [
    "LOADERS",
    "BinaryViT",
    "BinaryViTShape",
    "LoadedModel",
    "Loader",
    "Request",
    "ResolvedModel",
    "SpeechResNet",
    "load_weights",
    "resolve",
]
