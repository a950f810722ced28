"""Low-rank adapters of the residual: plain, weighted by the inputs, weighted by the loss.

Shapes: ``G`` channel groups, ``R`` rows, ``C`` columns, ``r`` rank, ``K`` full rank. All groups share a rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corank.errors import ConfigError
from corank.statistics import Gram, LayerStatistics, OutputGradient, require

__all__ = ["FITS", "LowRank", "decompose", "full_rank", "lost_energy"]

_DAMPING = 0.1


@dataclass(frozen=True)
class LowRank:
    """``left @ right``, an approximation of a residual.

    Attributes:
        left: ``(G, R, r)``, the 1 x 1 convolution.
        right: ``(G, r, C)``, the k x k convolution.
        energies: ``(r,)``, descending: what each direction takes off the error it was fitted to.
    """

    left: Tensor
    right: Tensor
    energies: Tensor

    @property
    def rank(self) -> int:
        return self.left.shape[2]

    def product(self) -> Tensor:
        """``(G * R, C)``."""
        return (self.left @ self.right).flatten(0, 1)

    def truncate(self, rank: int) -> LowRank:
        """The first ``rank`` directions: the optimal adapter of that rank for what it was fitted to."""
        return LowRank(self.left[:, :, :rank], self.right[:, :rank], self.energies[:rank])


def full_rank(shape: tuple[int, int, int]) -> int:
    """The rank at which an adapter gives the residual back; 0 where it would be larger than the layer's own weight
    at rank 1 (depthwise layers, single rows)."""
    _, rows, columns = shape
    return 0 if rows + columns > rows * columns else min(rows, columns)


def decompose(residual: Tensor, fit: str, statistics: LayerStatistics) -> LowRank:
    """The full-rank adapter of ``residual`` ``(G, R, C)``, directions in order of what they are worth.

    ``fit`` is one of :data:`FITS`:

    * ``"svd"``: truncated singular value decomposition, square roots of the singular values on both sides
      (CoRa, arXiv 2408.00923, step 2).
    * ``"output"``: least error of the layer's output, ``U`` the eigenvectors of ``E Sigma E^T``, ``left = U``,
      ``right = U^T E`` (equals QERA's exact form, arXiv 2410.06040).
    * ``"loss"``: the same under ``Gamma = E[g g^T]``, the second moment of the loss gradient at the output:
      ``U`` of ``Gamma^1/2 E Sigma E^T Gamma^1/2``, ``left = Gamma^-1/2 U``, ``right = U^T Gamma^1/2 E``.

    Raises:
        ConfigError: for another ``fit``. KeyError: when a needed statistic is missing.
    """
    if fit not in FITS:
        raise ConfigError(f"fit={fit!r}: an adapter is fitted by one of {', '.join(map(repr, FITS))}")
    if fit == "svd":
        left, values, right = torch.linalg.svd(residual, full_matrices=False)
        root = values.sqrt()
        return LowRank(left * root[:, None], root[:, :, None] * right, values.square().sum(0))
    gram = require(statistics, Gram, f"fit={fit!r}")
    covariance = residual @ gram.matrix @ residual.transpose(1, 2)
    if fit == "output":
        energies, vectors = _descending(covariance)
        return _cut(vectors, vectors.transpose(1, 2) @ residual, energies.sum(0) * gram.positions, residual)
    gradient = require(statistics, OutputGradient, "fit='loss'")
    root, inverse = _roots(gradient.matrix)
    energies, vectors = _descending(root @ covariance @ root)
    right = vectors.transpose(1, 2) @ root @ residual
    return _cut(inverse @ vectors, right, energies.sum(0) * gram.positions, residual)


FITS = ("svd", "output", "loss")


def lost_energy(residual: Tensor, fit: str, statistics: LayerStatistics) -> float:
    """What all directions of :func:`decompose` take off together: the error itself, as ``fit`` weighs it.

    The sum of the energies is a trace, so no direction needs to be found: ``tr(E E^T)``, ``tr(E Sigma E^T)`` and
    ``tr(Gamma E Sigma E^T)`` for the three fits.
    """
    if fit == "svd":
        return float(residual.double().square().sum())
    gram = require(statistics, Gram, f"fit={fit!r}")
    covariance = residual @ gram.matrix @ residual.transpose(1, 2)
    if fit == "output":
        weighted = covariance.diagonal(dim1=1, dim2=2)
    else:
        weighted = covariance * _damped(require(statistics, OutputGradient, "fit='loss'").matrix).transpose(1, 2)
    return max(float(weighted.double().sum()), 0.0) * gram.positions


def _cut(left: Tensor, right: Tensor, energies: Tensor, residual: Tensor) -> LowRank:
    keep = min(residual.shape[1:])
    return LowRank(left[:, :, :keep], right[:, :keep], energies[:keep].clamp(min=0))


def _descending(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    symmetric = (symmetric + symmetric.transpose(1, 2)).double() / 2
    energies, vectors = torch.linalg.eigh(symmetric)
    return energies.flip(-1).float(), vectors.flip(-1).float()


def _damped(matrix: Tensor) -> Tensor:
    """The matrix in float64 plus a tenth of its mean diagonal: outputs that no loss minds still count a little."""
    mean = matrix.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp(min=1e-30)
    same = torch.eye(matrix.shape[-1], dtype=torch.float64, device=matrix.device)
    return matrix.double() + _DAMPING * mean.double() * same


def _roots(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Square root of the damped matrix, and its inverse."""
    damped = _damped(matrix)
    energies, vectors = torch.linalg.eigh((damped + damped.transpose(1, 2)) / 2)
    root = energies.clamp(min=1e-38).sqrt()
    forward = (vectors * root[:, None]) @ vectors.transpose(1, 2)
    inverse = (vectors / root[:, None]) @ vectors.transpose(1, 2)
    return forward.float(), inverse.float()
