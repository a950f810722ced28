"""Models of timm, by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from corank.data.preprocessing import INTERPOLATIONS, Preprocessing
from corank.errors import ConfigError, ModelError
from corank.models.loader import LoadedModel, Request, unknown_name

__all__ = ["load_timm"]


def load_timm(request: Request) -> LoadedModel:
    """Build a timm model, with its published weights where `pretrained` says so.

    Args:
        request: the name is one of `timm.list_models()`, with or without a tag (`resnet18.a1_in1k`).

    Raises:
        ModelError: no such model, or its weights cannot be fetched.
        ConfigError: timm is not installed, or torchvision under it does not fit the installed torch.
    """
    try:
        import timm
        from timm.data.config import resolve_data_config
    except ImportError as error:
        raise ConfigError("timm: models need timm: pip install 'corank[vision]'") from error
    except RuntimeError as error:
        raise ConfigError(f"torchvision and torch are of different builds, install them together: {error}") from error
    if not timm.is_model(request.name):
        raise unknown_name("timm", request.name, timm.list_models())
    try:
        model = timm.create_model(request.name, pretrained=request.pretrained)
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"timm:{request.name} cannot be built: {error}") from error
    config = resolve_data_config({}, model=model)
    return LoadedModel(model, _preprocessing(config), request.name if request.pretrained else None)


def _preprocessing(config: Mapping[str, Any]) -> Preprocessing:
    channels, size = config["input_size"][0], config["input_size"][-1]
    # timm rounds the resized side down; stated as the share that gives that very side
    resized = math.floor(size / config["crop_pct"])
    return Preprocessing(
        image_size=size,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        crop=min(1.0, size / resized),
        channels=channels,
        interpolation=config["interpolation"] if config["interpolation"] in INTERPOLATIONS else "bilinear",
    )
