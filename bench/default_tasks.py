"""The networks that defaults are chosen by: calibration data and test batches of each, as few as are asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from corank.data import Preprocessing, TokenSet, load
from corank.models import resolve
from corank.models.weights import load_weights

sys.path.insert(0, str(Path(__file__).parent))
from models import NORMALISED, SqueezeNet, cifar_resnet20, cifar_resnet56

__all__ = ["TASKS", "Task"]


@dataclass(frozen=True)
class Task:
    """A trained network, what calibrates it and what scores it.

    Attributes:
        model: the float network.
        data: unlabelled, as :func:`corank.quantize` takes it.
        test: batches with labels, or sequences, as :func:`corank.evaluate` takes them.
    """

    model: nn.Module
    data: Any
    test: Any


def mobilenet_v2_050() -> nn.Module:
    """torchvision's MobileNetV2 at half width for images of 32 x 32: two strides fewer."""
    from torchvision.models import mobilenet_v2

    model = mobilenet_v2(num_classes=10, width_mult=0.5, dropout=0.0)
    model.get_submodule("features.0.0").stride = model.get_submodule("features.2.conv.1.0").stride = (1, 1)
    return model


def vision_transformer() -> nn.Module:
    """timm's, of 2.7 million parameters, for images of 32 x 32."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(img_size=32, patch_size=4, embed_dim=192, depth=6, num_heads=3, num_classes=10)


def _cifar(factory: Callable[[], nn.Module], weights: str) -> Callable[[Path, int | None], Task]:
    def task(shared: Path, scored: int | None) -> Task:
        preprocessing = Preprocessing(**NORMALISED)
        train = load(str(shared / "data/cifar10_jpeg_train.zip"), preprocessing)
        test = load(str(shared / "data/cifar10_jpeg_test.zip"), preprocessing, labelled=True)
        model = factory().eval()
        load_weights(model, shared / "models" / weights)
        return Task(model.float(), train, list((test.sample(scored, 0) if scored else test).batches(250)))

    return task


def _squeezenet(shared: Path, scored: int | None) -> Task:
    preprocessing = Preprocessing(**NORMALISED)
    photographs = str(shared / "data/imagenet_sample.zip")
    test = load(f"{photographs}[1::2]", preprocessing, labelled=True)
    model = SqueezeNet().eval()
    load_weights(model, shared / "models/squeezenet1_1_fp16.safetensors")
    test = test.sample(min(scored, 500), 0) if scored else test
    return Task(model.float(), load(f"{photographs}[0::2]", preprocessing), list(test.batches(50)))


def _stories(shared: Path, scored: int | None) -> Task:
    tokens = np.load(shared / "data/stories260k_tokens.npz")
    data, test = (TokenSet(torch.from_numpy(tokens[name]).long()) for name in ("calibration", "test"))
    return Task(resolve(f"hf:{shared / 'models/stories260k'}").model, data, test)


TASKS: dict[str, Callable[[Path, int | None], Task]] = {
    "resnet20": _cifar(cifar_resnet20, "cifar10_resnet20.safetensors"),
    "resnet56": _cifar(cifar_resnet56, "cifar10_resnet56.safetensors"),
    "mobilenet": _cifar(mobilenet_v2_050, "cifar10_mobilenetv2_050_fp16.safetensors"),
    "vit": _cifar(vision_transformer, "cifar10_vit_fp16.safetensors"),
    "squeezenet": _squeezenet,
    "stories260k": _stories,
}
"""By name: ``(folder of the data, test samples or None for all) -> Task``."""
