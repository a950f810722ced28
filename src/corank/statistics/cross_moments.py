"""What a layer would see in the float network beside what the quantized network feeds it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from corank.processes import all_reduce, number_of_processes
from corank.statistics.base import Statistic
from corank.statistics.moments import Gram

__all__ = ["CrossMoments"]


class CrossMoments(Statistic):
    """Second moments of quantized inputs ``x'`` and of float inputs ``x`` against them, in float32.

    Attributes:
        gram: the :class:`~corank.statistics.Gram` of ``x'``.
    """

    def __init__(self, groups: int, columns: int, device: torch.device | str = "cpu") -> None:
        self.gram = Gram(groups, columns, device)
        self._cross = torch.zeros(groups, columns, columns, dtype=torch.float32, device=device)
        self._float_sum = torch.zeros(groups, columns, dtype=torch.float32, device=device)

    def update(self, rows: Tensor, positions: int) -> None:
        """Not for single rows: use :meth:`update_pair`."""
        self.update_pair(rows, rows, positions)

    def update_pair(self, float_rows: Tensor, rows: Tensor, positions: int) -> None:
        """Takes the same sampled positions ``(G, N, C)`` of both networks' inputs."""
        if not rows.shape[1]:
            return
        self.gram.update(rows, positions)
        given, expected = (self.gram.shifted(part.detach().float()) for part in (rows, float_rows))
        self._cross.baddbmm_(expected.transpose(1, 2), given)
        self._float_sum += expected.sum(1)

    def to(self, device: torch.device) -> CrossMoments:
        if self._cross.device == device:
            return self
        moved = copy.copy(self)
        moved.gram, moved._cross = self.gram.to(device), self._cross.to(device)
        moved._float_sum = self._float_sum.to(device)
        return moved

    def reduce(self) -> None:
        """Adds up what the processes saw; see :mod:`corank.processes`."""
        if number_of_processes() == 1:
            return
        count, given_sum, before = self.gram.count, self.gram.shifted_mean * self.gram.count, self.gram.origin
        self.gram.reduce()
        moved = before - self.gram.origin
        self._cross += self._float_sum[:, :, None] * moved[:, None, :] + moved[:, :, None] * given_sum[:, None, :]
        self._cross += count * moved[:, :, None] * moved[:, None, :]
        self._float_sum += count * moved
        all_reduce([self._cross, self._float_sum])

    @property
    def float_mean(self) -> Tensor:
        """``E[x]``, ``(G, C)``."""
        mean = self._float_sum / max(self.gram.count, 1)
        return mean if self.gram.shift is None else mean + self.gram.shift

    @property
    def cross(self) -> Tensor:
        """``E[x x'^T]``, ``(G, C, C)``."""
        found, shift = self._cross / max(self.gram.count, 1), self.gram.shift
        if shift is None:
            return found
        mean = self._float_sum / max(self.gram.count, 1)
        return found + mean[:, :, None] * shift[:, None, :] + shift[:, :, None] * self.gram.mean[:, None, :]

    def centred(self) -> CrossMoments:
        """The same inputs less their means: what matters once the bias absorbs the mean error."""
        groups, columns = self._float_sum.shape
        centred = CrossMoments(groups, columns, self._float_sum.device)
        centred.gram = self.gram.centred()
        count = max(self.gram.count, 1)
        means = (self._float_sum / count)[:, :, None] * self.gram.shifted_mean[:, None, :]
        varies = centred.gram.matrix.diagonal(dim1=1, dim2=2) > 0
        centred._cross = (self._cross / count - means) * varies[:, None, :] * count
        return centred

    def corrected(self, weight: Tensor, centred: bool, ridge: float) -> Tensor:
        """The weight that best gives the float outputs from quantized inputs, pulled to ``weight`` ``(G, R, C)``.

        ``M = (W E[x x'^T] + e W)(E[x' x'^T] + e I)^-1`` with ``e = ridge`` times the mean diagonal; with ``centred``
        the moments are covariances and the bias takes up the means.
        """
        drift = self.centred() if centred else self
        factor, pulled = drift.gram.derived(("corrected", ridge), lambda: drift._pulled(ridge))
        wanted = weight @ pulled
        return torch.cholesky_solve(wanted.transpose(1, 2), factor).transpose(1, 2).contiguous()

    def _pulled(self, ridge: float) -> tuple[Tensor, Tensor]:
        """The Cholesky factor of ``E[x' x'^T] + e I``, and ``E[x x'^T] + e I``; the same for all that read ``x'``."""
        moment, cross = self.gram.matrix, self.cross
        mean = moment.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp(min=1e-12)
        pull = ridge * mean * torch.eye(moment.shape[-1], dtype=moment.dtype, device=moment.device)
        return torch.linalg.cholesky(moment + pull), cross + pull
