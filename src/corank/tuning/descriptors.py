"""Numbers that tell models apart, for a tuner that has seen others."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from corank.layers import PreparedModel

__all__ = ["descriptors"]


def descriptors(prepared: PreparedModel) -> dict[str, float]:
    """Size, depth, kinds of layers, and how far the weights' rows and tails are apart.

    ``spread`` is the mean over layers of log2 of the tensor's largest weight over its rows' median largest one: what
    steps for a channel would gain. ``tail`` is the same of the largest weight over the root mean square.
    """
    layers = [one for one in prepared.targets.values() if isinstance(one, (nn.Linear, nn.modules.conv._ConvNd))]
    convolutions = [one for one in layers if isinstance(one, nn.modules.conv._ConvNd)]
    weights = [one.weight.detach().float().cpu() for one in layers]
    count = max(1, len(layers))
    return {
        "layers": float(len(layers)),
        "log2_weights": math.log2(max(1, sum(weight.numel() for weight in weights))),
        "depthwise": sum(one.groups > 1 for one in convolutions) / count,
        "pointwise": sum(set(one.kernel_size) == {1} for one in convolutions) / count,
        "linear": (len(layers) - len(convolutions)) / count,
        "bias": sum(one.bias is not None for one in layers) / count,
        "spread": _mean(_log2(_largest(weight).amax() / _largest(weight).median()) for weight in weights),
        "tail": _mean(_log2(weight.abs().amax() / weight.square().mean().sqrt()) for weight in weights),
        "outputs": math.log2(max(1, layers[-1].weight.shape[0])) if layers else 0.0,
    }


def _largest(weight: Tensor) -> Tensor:
    return weight.flatten(1).abs().amax(1).clamp_min(1e-12)


def _log2(ratio: Tensor) -> float:
    return float(torch.nan_to_num(ratio, nan=1.0, posinf=1.0).clamp_min(1e-12).log2())


def _mean(values: Iterator[float]) -> float:
    found = list(values)
    return sum(found) / max(1, len(found))
