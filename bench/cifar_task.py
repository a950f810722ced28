"""The CIFAR-10 (JPEG) task of the scripts beside this file: network, calibration images and labelled test batches."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from corank.data import ImageSet, Preprocessing, load
from corank.models.weights import load_weights

sys.path.insert(0, str(Path(__file__).parent))
from default_tasks import mobilenet_v2_050, vision_transformer
from models import cifar_resnet20, cifar_resnet56

__all__ = ["NETWORKS", "OTHERS", "CifarTask"]

NETWORKS = {20: cifar_resnet20, 56: cifar_resnet56}
OTHERS = {
    "mobilenet": (mobilenet_v2_050, "cifar10_mobilenetv2_050_fp16.safetensors"),
    "vit": (vision_transformer, "cifar10_vit_fp16.safetensors"),
}
"""Networks that are no ResNets, by name: what makes them, and the file of their weights."""


@dataclass(frozen=True)
class CifarTask:
    """A trained network, 50,000 training images to draw from, and the 10,000 test images in batches of 500."""

    model: nn.Module
    train: ImageSet
    test: list[Any]

    @classmethod
    def of(cls, shared: Path, network: int | str, labelled: bool = False, images: int | None = None) -> CifarTask:
        """Reads weights and images from the folder ``shared``; training labels only if ``labelled``.

        Of each set only ``images`` are taken where that is given, to try a script.
        """
        preprocessing = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        train = load(str(shared / "data/cifar10_jpeg_train.zip"), preprocessing, labelled=labelled)
        test = load(str(shared / "data/cifar10_jpeg_test.zip"), preprocessing, labelled=True)
        if images is not None:
            train, test = train.sample(images, 0), test.sample(images, 0)
        factory, weights = (
            OTHERS[network] if isinstance(network, str) else (NETWORKS[network], f"cifar10_resnet{network}.safetensors")
        )
        model = factory().eval()
        load_weights(model, shared / "models" / weights)
        return cls(model.float(), train, list(test.batches(500)))
