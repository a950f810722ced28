"""Coarse and fine weight splitting for 3x3 kernels whose centre dominates (CFWS, arXiv 2312.10588).

When the branches of a RepVGG block are fused, the centre of the 3x3 kernel carries the 1x1 and the identity branch and
is much larger than its eight neighbours, so that one scale wastes its range. The centre's multiples of a coarse step
become a 1x1 convolution of their own, which rounds without any error; what is left keeps a fine scale.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from corank.codecs import Codec, Uniform
from corank.errors import ConfigError, ModelError
from corank.layers.replace import replace_module

__all__ = ["CoarseFineConv2d", "centre_codecs", "split_centres"]

_DOMINANCE = 2.0


class CoarseFineConv2d(nn.Module):
    """A 3x3 convolution as the sum of a 1x1 convolution (``coarse``, with the bias) and a 3x3 one (``fine``).

    Args:
        layer: a 3x3 ``nn.Conv2d`` whose padding is its dilation, so that the centre sees the pixel it writes.
        bits: of the symmetric codes that the coarse part is to fit exactly.
    """

    def __init__(self, layer: nn.Conv2d, bits: int = 8) -> None:
        super().__init__()
        weight = layer.weight.detach()
        # The centre alone: as a 1x1 kernel without padding it reads the very pixel that the 3x3 kernel's centre reads.
        coarse = _coarse(weight[:, :, 1, 1], bits)
        self.coarse = nn.Conv2d(
            layer.in_channels, layer.out_channels, 1, groups=layer.groups, bias=layer.bias is not None
        ).to(weight)
        self.coarse.stride = layer.stride
        self.fine = copy.deepcopy(layer)
        # The sum of both parts must have the bias once.
        self.fine.bias = None
        with torch.no_grad():
            self.coarse.weight.copy_(coarse[:, :, None, None])
            # By subtraction, so that coarse + fine is the weight, however coarse was rounded.
            self.fine.weight[:, :, 1, 1] -= coarse
            if layer.bias is not None and self.coarse.bias is not None:
                self.coarse.bias.copy_(layer.bias)
        self.train(layer.training)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` to what the layer it was made of gives."""
        return self.coarse(images) + self.fine(images)


def split_centres(
    model: nn.Module, bits: int = 8, names: Iterable[str] | None = None, dominance: float = _DOMINANCE
) -> nn.Module:
    """A copy of a float network whose dominated 3x3 convolutions are split; its outputs are those of the network.

    ``coarse + fine`` is the weight, with ``c_coarse = floor(c / g + 0.5) g`` and so ``|c_fine| <= g / 2``, as the
    authors' code has it. The step ``g`` of a row is the least that its centres need on a symmetric grid of ``bits``
    bits, rounded up to fp16, as scales are stored. (The paper's grid ends at ``+-(2 ** (bits - 1) - 1)``; here it has
    one value more below zero.) One ninth more weights and multiplications.

    Args:
        model: a network whose blocks are fused; it is not changed. :func:`corank.load` needs the split network, too.
        bits: of the codes to come, 2 to 8; see :func:`centre_codecs`.
        names: the layers to split; None: all 3x3 convolutions that can be split and whose centres are, in the mean
            over rows, more than ``dominance`` times as large as their other weights (largest against largest).
        dominance: for ``names=None``; 0 splits every 3x3 convolution.

    Raises:
        ConfigError: bits out of range. ModelError: a named layer is missing or cannot be split.
    """
    if type(bits) is not int or not 2 <= bits <= 8:
        raise ConfigError(f"bits={bits!r}: 2 to 8, e.g. split_centres(model, bits=8)")
    found = copy.deepcopy(model)
    layers = dict(found.named_modules())
    if names is None:
        # Where the centre does not stand out there is no range to gain, and the split costs a ninth more.
        chosen = [name for name, layer in layers.items() if _can_split(layer) and _dominance(layer) > dominance]
    else:
        chosen = list(names)
    for name in chosen:
        layer = layers.get(name)
        if not _can_split(layer):
            given = "no such layer" if layer is None else f"{type(layer).__name__} that cannot be split"
            raise ModelError(f"{name!r} is {given}: a 3x3 nn.Conv2d, zero-padded by its dilation, is needed")
        assert isinstance(layer, nn.Conv2d)
        replace_module(found, layer, CoarseFineConv2d(layer, bits))
    return found


def centre_codecs(model: nn.Module, bits: int = 8) -> dict[str, Codec]:
    """Exceptions for :func:`corank.quantize` that code both parts of every split layer as the paper does.

    Symmetric, one scale for each output channel, from the largest weight; the coarse part has no rounding error then.

    Args:
        model: what :func:`split_centres` gave, with the same ``bits``.

    Returns:
        ``quantize(layers=...)``: layer name to codec; empty for a network without split layers.
    """
    # Its scale for the coarse part is the step g again: the largest multiple sets it, as the largest centre set g.
    codec = Uniform(bits, symmetric=True)
    return {
        f"{name}.{part}" if name else part: codec
        for name, layer in model.named_modules()
        if isinstance(layer, CoarseFineConv2d)
        for part in ("coarse", "fine")
    }


def _coarse(centre: Tensor, bits: int) -> Tensor:
    """The multiple of each row's step that is closest to the centre ``(rows, inputs)``; ties go up."""
    half = 2 ** (bits - 1)
    # The codes reach from -half to half - 1. Rounded to fp16 upwards: with a smaller step the outermost would not fit.
    step = _half_above(torch.maximum(-centre.amin(1) / half, centre.amax(1) / (half - 1)).clamp_min(0))[:, None]
    # Not torch.round, which sends ties to even numbers. A row of zeros has no step, and must not divide by it.
    return torch.where(step > 0, torch.floor(centre / step.clamp_min(1e-30) + 0.5) * step, 0.0)


def _half_above(values: Tensor) -> Tensor:
    """The least number of fp16 that is not smaller, for values that are not negative."""
    half = values.to(torch.float16)
    above = torch.nextafter(half, torch.full_like(half, torch.inf))
    return torch.where(half.to(values.dtype) < values, above, half).to(values.dtype)


def _can_split(layer: nn.Module | None) -> bool:
    return (
        type(layer) is nn.Conv2d
        and layer.kernel_size == (3, 3)
        and layer.padding == layer.dilation
        and layer.padding_mode == "zeros"
    )


def _dominance(layer: nn.Module) -> float:
    """How many times larger a row's largest centre is than its largest other weight, in the mean over rows."""
    assert isinstance(layer, nn.Conv2d)
    size = layer.weight.detach().abs()
    # Largest against largest: scales are set by the largest weight of a row.
    centre = size[:, :, 1, 1].amax(1)
    rest = size.flatten(2)[:, :, [0, 1, 2, 3, 5, 6, 7, 8]].amax((1, 2))
    return float((centre / rest.clamp_min(1e-12)).mean())
