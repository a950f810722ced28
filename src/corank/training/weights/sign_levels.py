"""Weights as sums of signed sizes, ``sum_i v_i b_i``: their gradients, their levels, their least squares fit.

``R`` rows, ``C`` columns, ``K`` sizes a row. The sign of zero is +1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from corank.codecs import RowLevels
from corank.codecs.base import SMALLEST_SCALE
from corank.codecs.scaled import least_error_scale

__all__ = ["fit_levels", "levels_of", "of_signs"]

_ROUNDS = 50
_LEAST = 0.1  # magnitude of a latent at the start


def of_signs(sizes: Tensor, latent: Tensor) -> Tensor:
    """``sum_i sizes[:, i] sign(latent[i])`` ``(R, C)``, with the gradients ``G``-weighted by sign and by size:
    ``dL/dv_i = <sign(P_i), G>`` and, where ``|P_i| <= 1``, ``dL/dP_i = v_i G``.

    Args:
        sizes: ``(R, K)`` float, or ``(1, K)`` for all rows.
        latent: ``(K, R, C)`` of the same dtype.
    """
    return _OfSigns.apply(sizes, latent)


class _OfSigns(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sizes: Tensor, latent: Tensor) -> Tensor:
        ctx.save_for_backward(sizes, latent)
        return _sum(sizes, _signs(latent))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        (sizes, latent), gradient = ctx.saved_tensors, grad_outputs[0]
        of_rows = (_signs(latent) * gradient).sum(2).T
        of_sizes = of_rows.sum(0, keepdim=True) if len(sizes) == 1 else of_rows
        return of_sizes, sizes.T[:, :, None] * gradient * (latent.abs() <= 1)


def levels_of(sizes: Tensor) -> Tensor:
    """The ``2 ** K`` sums of each row ``(R, 2 ** K)``: bit ``i`` of a sum's place says whether sign ``i`` is +1."""
    return sizes @ _patterns(sizes.shape[1], sizes).T


def fit_levels(weight: Tensor, bits: int, per: str = "row") -> tuple[Tensor, Tensor]:
    """Sizes and latents near ``weight``, by alternating least squares (as in LQ-Nets, arXiv 1807.10029).

    From the best even grid, each round gives every weight its nearest level and the sizes their least squares for those
    signs; the squared error of a row never grows.

    Args:
        weight: ``(R, C)`` float32.
        bits: ``K``.
        per: what has sizes of its own, "row" or "layer".

    Returns:
        Sizes ``(R, K)``, or ``(1, K)``, positive and descending. Latents ``(K, R, C)``: the signs, 0.1 to 1 in
        magnitude by how far a weight is from where the sign would turn, in units of its size.
    """
    rows = weight.detach().float()
    rows = rows if per == "row" else rows.reshape(1, -1)
    powers = 2.0 ** torch.arange(bits - 1, -1, -1, dtype=torch.float32, device=rows.device)
    sizes = least_error_scale(rows, levels_of(powers[None])[0].sort().values) * powers
    signs = _nearest(rows, sizes)
    for _ in range(_ROUNDS):
        moved = _least_squares(rows, signs)
        again = _nearest(rows, moved)
        better = _error(rows, moved, again) < _error(rows, sizes, signs)
        if not bool(better.any()):
            break
        sizes = torch.where(better[:, None], moved, sizes)
        signs = torch.where(better[:, None], again, signs)
    return sizes, (signs * _firmness(rows, sizes)).reshape(bits, *weight.shape)


def _least_squares(rows: Tensor, signs: Tensor) -> Tensor:
    normal = torch.einsum("krc,lrc->rkl", signs, signs).double()
    pull = torch.einsum("krc,rc->rk", signs, rows).double()
    # Signs that always agree make it singular: the shortest solution then.
    found = (torch.linalg.pinv(normal, hermitian=True) @ pull[:, :, None])[:, :, 0].float()
    # A negative size is a positive one whose signs are turned: the levels are the same. Never zero: a row of zeros must
    # be able to leave it.
    return found.abs().sort(1, descending=True).values.clamp(min=SMALLEST_SCALE)


def _firmness(rows: Tensor, sizes: Tensor) -> Tensor:
    """``(K, R, C)``, 0.1 to 1: how much farther the best level with a sign turned is."""
    found = []
    for place in range(sizes.shape[1]):
        size = sizes[:, place : place + 1]
        others = torch.cat([sizes[:, :place], sizes[:, place + 1 :]], 1)
        # The other signs make up for it as well as they can.
        up, down = (_away(rows - side * size, others) for side in (1, -1))
        found.append(_LEAST + (1 - _LEAST) * ((up - down).abs() / (2 * size)).clamp(max=1))
    return torch.stack(found)


def _away(rows: Tensor, sizes: Tensor) -> Tensor:
    return (_sum(sizes, _nearest(rows, sizes)) - rows).abs() if sizes.shape[1] else rows.abs()


def _sum(sizes: Tensor, signs: Tensor) -> Tensor:
    return (sizes.T[:, :, None] * signs).sum(0)


def _signs(latent: Tensor) -> Tensor:
    return (latent >= 0).to(latent.dtype) * 2 - 1


def _patterns(count: int, like: Tensor) -> Tensor:
    """Signs ``(2 ** count, count)``."""
    place = torch.arange(2**count, device=like.device)[:, None]
    return (place >> torch.arange(count, device=like.device) & 1).to(like.dtype) * 2 - 1


def _nearest(rows: Tensor, sizes: Tensor) -> Tensor:
    """Signs ``(K, R, C)`` of the level nearest to each of ``rows`` ``(R, C)``."""
    levels, order = levels_of(sizes).sort(1)
    codes = RowLevels(levels).nearest(rows).long().clamp(max=levels.shape[1] - 1)
    return _patterns(sizes.shape[1], sizes)[order.gather(1, codes)].permute(2, 0, 1)


def _error(rows: Tensor, sizes: Tensor, signs: Tensor) -> Tensor:
    return (_sum(sizes, signs) - rows).square().sum(1)
