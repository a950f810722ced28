"""Small vision transformers with random weights: `from layers.tiny_vit import timm_vit, hf_vit, IMAGES`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

__all__ = ["IMAGES", "hf_vit", "timm_vit"]

IMAGES = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float32)


def timm_vit(depth: int = 2, **given: Any) -> nn.Module:
    """Three heads of 8, five tokens, four classes."""
    timm = pytest.importorskip("timm.models.vision_transformer")
    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 24, "depth": depth, "num_heads": 3, "num_classes": 4}
    return _drawn(timm.VisionTransformer(**{**sizes, **given}))


def hf_vit(kind: str = "ViT", **given: Any) -> nn.Module:
    """The same of transformers; it gives logits in a named output."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32,
             "image_size": 8, "patch_size": 4, "num_labels": 4}  # fmt: skip
    config = getattr(transformers, f"{kind}Config")
    return _drawn(getattr(transformers, f"{kind}ForImageClassification")(config(**{**sizes, **given})))


def _drawn(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.25)
    return model.eval()
