"""Levels and signs that train directly, no float weight behind them, in the manner of Direct Quantization
(arXiv 2012.13762; a reconstruction from its abstract)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from corank.codecs import Codec, KMeans
from corank.codecs.base import as_stored
from corank.codecs.clusters import compacted
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError
from corank.training.weights.base import TrainableWeight, WeightStart, WeightTraining, straight_through
from corank.training.weights.sign_levels import fit_levels, levels_of, of_signs

__all__ = ["DirectLevels", "DirectLevelsWeight"]


@dataclass(frozen=True)
class DirectLevels(WeightTraining):
    """``W = s sum_i v_i sign(P_i)``, sizes ``v`` and latents ``P`` learned: at most ``2 ** bits`` values.

    Gradients are those of :func:`~corank.training.weights.sign_levels.of_signs`. Sizes are their start times ``exp`` of
    what trains, and so positive. The start is the least squares fit to the float weight; the file holds the levels as
    fp16, as :class:`~corank.codecs.KMeans` does.

    Args:
        bits: 1 to 8, the number of sizes.
        per: what has sizes of its own: "layer", with a scale ``s`` for each row that trains as sizes do; or "row",
            where ``s`` is 1 and each row stores ``2 ** bits`` levels. The first trains better and stores less.
    """

    bits: int = 2
    per: str = "layer"
    starts: ClassVar[tuple[str, ...]] = ("float", "scratch")

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 1 <= self.bits <= 8:
            raise ConfigError(f"bits={self.bits!r}: DirectLevels takes 1 to 8, e.g. DirectLevels(bits=2)")
        if self.per not in ("row", "layer"):
            raise ConfigError(f"per={self.per!r}: sizes per 'row' or 'layer', e.g. DirectLevels(2, per='layer')")

    @property
    def stored(self) -> Codec:
        return KMeans(self.bits, self.per, scaled=self.per == "layer")

    def with_codec(self, codec: Codec) -> Self:
        asked = replace(self, bits=codec.bits)
        if codec != asked.stored:
            raise ConfigError(f"DirectLevels learns levels of its own, stored as {asked.stored}, not as {codec}")
        return asked

    def start(self, given: WeightStart) -> tuple[TrainableWeight, Tensor]:
        weight = given.weight.detach().float()
        scale = as_stored(weight.square().mean(1, keepdim=True).sqrt()) if self.per == "layer" else None
        found = fit_levels(weight if scale is None else weight / scale, self.bits, self.per)
        return DirectLevelsWeight(self, *found, scale), given.weight


class DirectLevelsWeight(TrainableWeight):
    """See :class:`DirectLevels`; the layer's float weight is not looked at."""

    trains_weight = False
    latents = ("latent",)

    def __init__(self, how: DirectLevels, sizes: Tensor, latent: Tensor, scale: Tensor | None) -> None:
        super().__init__()
        self._how = how
        self.growth = nn.Parameter(torch.zeros_like(sizes))
        self.latent = nn.Parameter(latent)
        self.register_buffer("sizes", sizes)
        self.register_buffer("scale", scale)
        self.row_growth = None if scale is None else nn.Parameter(torch.zeros_like(scale))

    @property
    def codec(self) -> Codec:
        return self._how.stored

    @property
    def levels(self) -> Tensor:
        """``(R, 2 ** K)``, or ``(1, 2 ** K)``, as the file has them: rounded to fp16."""
        exact = levels_of(self._sizes().detach())
        return exact.clamp(-65504.0, 65504.0).to(torch.float16).float()

    def forward(self, weight: Tensor) -> Tensor:
        scale = self._scale()
        values = scale.detach() * self._values(self.levels)
        if not torch.is_grad_enabled():
            return values
        return straight_through(values, scale * of_signs(self._sizes(), self.latent))

    def coded(self, weight: Tensor) -> CodedWeight:
        levels, values = compacted(self.levels), self._values(self.levels)
        # Every value is one of its row's levels exactly: a search from the left finds its first place.
        codes = torch.searchsorted(levels.expand(len(values), -1).contiguous(), values).to(torch.uint8)
        kept = {"levels": levels.flatten(), "scale": self._scale().detach().flatten()}
        return CodedWeight(codes, self.codec.codebook(kept, *values.shape))

    def _sizes(self) -> Tensor:
        return self.get_buffer("sizes") * self.growth.exp()

    def _scale(self) -> Tensor:
        if self.row_growth is None:
            return torch.ones(1, 1, dtype=self.growth.dtype, device=self.growth.device)
        return self.get_buffer("scale") * self.row_growth.exp()

    def _values(self, levels: Tensor) -> Tensor:
        positive = (self.latent.detach() >= 0).long()
        places = torch.arange(len(positive), device=positive.device)[:, None, None]
        index = (positive << places).sum(0)
        return levels.expand(len(index), -1).gather(1, index)
