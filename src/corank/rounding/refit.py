"""Scales by the output they give: codes and scales in turn, each the best for the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeGuard

import torch
from torch import Tensor

from corank.codecs import Codebook, ScalarCodebook
from corank.codecs.base import as_stored
from corank.rounding.descent import descend
from corank.rounding.walk import Walk, energy_order

__all__ = ["alternate", "refit_scales"]

_RIDGE = 1e-3  # of the mean energy of an input: fewer samples than inputs leave directions that nothing was seen of
_SWEEPS = 3


def alternate(
    codebook: Codebook,
    weight: Tensor,
    gram: Tensor,
    rounds: int,
    allowed: Callable[[Codebook], Codebook] = lambda codebook: codebook,
) -> tuple[Codebook, Tensor]:
    """The codebook with scales of small ``tr((W - Q) M (W - Q)^T)``, ``M`` being ``gram`` and a small ridge, and codes.

    From the nearest codes, each round walks the columns a few times, letting each take its best codes while all others
    stay, and then gives each scale its best value for the codes. The error never grows, but for the scale's rounding
    to fp16. At one bit this is the input-weighted binarization of BiTAT (arXiv 2207.01394; a reconstruction): a sign is
    flipped where that lowers the error, in descending order of the inputs' energy.

    Args:
        codebook: returned as it is unless it is a :class:`~corank.codecs.ScalarCodebook` with scales of fp16.
        weight: ``(G * R, C)`` float32.
        gram: ``(G, C, C)``.
        rounds: at most; fewer where codes and scales stay.
        allowed: what of the codebook each weight may take.
    """
    codes = allowed(codebook).nearest(weight)
    if not _has_scales(codebook):
        return codebook, codes
    mean = gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    # The same M for codes and for scales: both steps lower one and the same error.
    moment = gram + _RIDGE * mean * torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    order = energy_order(gram)
    for _ in range(rounds):
        moved = descend(codes, weight, Walk(allowed(codebook), order), moment, _SWEEPS)
        fitted = refit_scales(codebook, moved, weight, moment)
        # A fixed point of both steps: every further round would repeat it.
        if torch.equal(moved, codes) and _same(fitted, codebook):
            break
        codes, codebook = moved, fitted
    return codebook, codes


def refit_scales(codebook: Codebook, codes: Tensor, weight: Tensor, gram: Tensor) -> Codebook:
    """The codebook with the scales of least output error for ``codes`` ``(G * R, C)``, one group of columns at a time.

    A scale whose best value is not positive stays.
    """
    if not _has_scales(codebook):
        return codebook
    columns, size = weight.shape[1], codebook.group_size
    # Q is linear in the scales: with U the values at scale one, moving a scale by d moves its columns of Q by d U.
    unit = replace(codebook, scale=torch.ones_like(codebook.scale)).values(codes).reshape(len(gram), -1, columns)
    # E M with E = W - Q. The error of a row, (e - d u) M (e - d u)^T, is least at d = u M e^T / u M u^T.
    pull = (weight - codebook.values(codes)).reshape(unit.shape) @ gram
    scale = codebook.scale.clone()
    for group in range(scale.shape[1]):
        inside = slice(group * size, (group + 1) * size) if scale.shape[1] > 1 else slice(None)
        # u M: zero outside the group in U, but not in what it pulls on, so all columns are kept.
        seen = unit[:, :, inside] @ gram[:, inside]
        gain = (unit[:, :, inside] * pull[:, :, inside]).sum(2).reshape(-1, 1)
        energy = (unit[:, :, inside] * seen[:, :, inside]).sum(2).reshape(-1, 1)
        # One scale for all rows: their errors add up, and so do both sides of the quotient.
        if len(scale) == 1:
            gain, energy = gain.sum(0, keepdim=True), energy.sum(0, keepdim=True)
        before = scale[:, group : group + 1]
        best = before + torch.where(energy > 0, gain / energy.clamp(min=1e-30), 0.0)
        # A negative scale would turn the ascending values round, which every search by thresholds rests on.
        after = torch.where(best > 0, as_stored(best), before)
        # With the step as stored, not as wished: the next group answers for this one's rounding to fp16 as well.
        pull = pull - (after - before).expand(len(weight), 1).reshape(len(gram), -1, 1) * seen
        scale[:, group : group + 1] = after
    return replace(codebook, scale=scale)


def _has_scales(codebook: Codebook) -> TypeGuard[ScalarCodebook]:
    # Scales that are powers of two could not keep the value found.
    return isinstance(codebook, ScalarCodebook) and codebook.scale_bits == 16


def _same(one: Codebook, other: Codebook) -> bool:
    return all(torch.equal(tensor, other.tensors()[name]) for name, tensor in one.tensors().items())
