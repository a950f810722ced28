"""Magnitude pruning of codes: the smallest weights take the code of zero, and every rounder works around them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corank.codecs import Codebook
from corank.errors import ConfigError

__all__ = ["Pruned", "smallest"]


def smallest(weight: Tensor, sparsity: float) -> Tensor:
    """Whether each weight ``(R, C)`` is one of the ``floor(sparsity * R * C)`` smallest in magnitude.

    Of equal magnitudes the first are pruned, so that the number is exact.
    """
    # By place in a stable order, not by a threshold: equal magnitudes (zeros above all) would make the count drift.
    count = int(sparsity * weight.numel())
    mask = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    mask[weight.detach().abs().reshape(-1).argsort(stable=True)[:count]] = True
    return mask.reshape(weight.shape)


@dataclass(frozen=True)
class Pruned(Codebook):
    """A codebook in which pruned weights may take the value zero alone.

    Rounders that walk the columns (GPTQ and its kin) spread a pruned weight's error over the weights to come as they
    do any other error: with a mask fixed before, SparseGPT's compensation (arXiv 2301.00774).

    Attributes:
        codebook: of all weights.
        mask: ``(R, C)`` bool, which weights are pruned.
        zeros: ``(R, C)`` uint8, the code of zero of each; made by :meth:`of`.
    """

    codebook: Codebook
    mask: Tensor
    zeros: Tensor

    @classmethod
    def of(cls, codebook: Codebook, mask: Tensor) -> Pruned:
        """A codebook ``(R, C)`` whose weights in ``mask`` are pruned.

        Raises:
            ConfigError: where the codebook has no zero for one of them.
        """
        # One for each weight: where rows or groups have offsets of their own, so has the code of zero.
        zeros = codebook.nearest(torch.zeros(mask.shape, dtype=torch.float32, device=mask.device))
        lost = mask & (codebook.values(zeros) != 0)
        if bool(lost.any()):
            raise ConfigError(
                f"{int(lost.sum())} of {int(mask.sum())} weights to prune have no zero among their values; sparsity "
                "needs a codec that has one in every row, e.g. LayerPlan(Uniform(bits=4), sparsity=0.9): whole offsets "
                "(half=False), and more than 1 bit where symmetric"
            )
        return cls(codebook, mask, zeros)

    @property
    def code_bits(self) -> int:
        return self.codebook.code_bits

    @property
    def size(self) -> int:
        return self.codebook.size

    def nearest(self, weight: Tensor) -> Tensor:
        return torch.where(self.mask, self.zeros, self.codebook.nearest(weight))

    def neighbours(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        below, above = self.codebook.neighbours(weight)
        # Both neighbours alike: a rounder that chooses between them has no choice left.
        return torch.where(self.mask, self.zeros, below), torch.where(self.mask, self.zeros, above)

    def values(self, codes: Tensor) -> Tensor:
        return self.codebook.values(codes)

    def columns(self, index: Tensor) -> Pruned:
        return Pruned(self.codebook.columns(index), self.mask[:, index], self.zeros[:, index])

    def tensors(self) -> dict[str, Tensor]:
        # The mask is not among them: pruned weights carry the code of zero, and the codes are stored anyway.
        return self.codebook.tensors()

    @property
    def size_bits(self) -> int:
        return self.codebook.size_bits
