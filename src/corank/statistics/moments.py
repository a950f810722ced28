"""First and second moments of rows, accumulated in float32."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from corank.processes import all_reduce, number_of_processes
from corank.statistics.base import Statistic

__all__ = ["Gram", "OutputGradient"]

D = TypeVar("D")

_BLOCKS, _NARROWEST = 8, 96  # of a sum of outer products, of which only the upper blocks are computed
_NARROWEST_ELSEWHERE = 1024  # on a device, which takes longer to start a small product than to compute it
_NOISE = 1e-5  # variance over energy, below which float32 sums of squares say nothing of it
_CONSTANT = 1e-11  # the same of single numbers, of which float32 keeps seven digits
_FAR = 300.0  # squared mean over variance, from which rows are summed about their mean


class _Moments(Statistic):
    """Mean outer product ``(G, C, C)`` and mean ``(G, C)`` of rows, and the positions each sample has.

    Columns that vary little around a large mean are summed about it, as the first rows have it: a difference of sums of
    squares would lose their variance in float32.

    Attributes:
        shift: ``(G, C)``, what rows are summed about, mostly zeros; None where it is zero everywhere.
    """

    def __init__(self, groups: int, width: int, device: torch.device | str = "cpu") -> None:
        self.count = 0
        self.samples = 0
        self._positions = 0
        self._derived: dict[Hashable, Any] = {}
        self._outer = torch.zeros(groups, width, width, dtype=torch.float32, device=device)
        self._mirrored = True
        self._sum = torch.zeros(groups, width, dtype=torch.float32, device=device)
        self.shift: Tensor | None = None

    def derived(self, key: Hashable, make: Callable[[], D]) -> D:
        """What ``make`` computes from these moments, computed once until the next update."""
        if key not in self._derived:
            self._derived[key] = make()
        return self._derived[key]

    def to(self, device: torch.device) -> Self:
        return self if self._sum.device == device else self.derived(("at", device), lambda: self._copied(device))

    def _copied(self, device: torch.device) -> Self:
        moved = copy.copy(self)
        moved._derived, moved._outer, moved._sum = {}, self._outer.to(device), self._sum.to(device)
        moved.shift = None if self.shift is None else self.shift.to(device)
        return moved

    def update(self, rows: Tensor, positions: int) -> None:
        if not rows.shape[1]:
            return
        self._derived.clear()
        rows = rows.detach().float()
        if not self.count:
            self.shift = _far_mean(rows)
        rows = self.shifted(rows)
        _add_upper(self._outer, rows)
        self._mirrored = False
        self._sum += rows.sum(1)
        self.count += rows.shape[1]
        self.samples += 1
        self._positions += positions

    def of_passes(self, count: int) -> None:
        """Says in how many passes of a batch the rows came: a layer that is called several times has the positions of
        all its calls."""
        if self.samples:
            self.samples = count

    def shifted(self, rows: Tensor) -> Tensor:
        """Rows ``(G, N, C)`` less the shift."""
        return rows if self.shift is None else rows - self.shift[:, None]

    @property
    def origin(self) -> Tensor:
        """The shift, zeros where there is none."""
        return torch.zeros_like(self._sum) if self.shift is None else self.shift

    def _share_shift(self) -> None:
        """Sums about the mean of all processes' shifts from now on."""
        own = self.origin
        seen = torch.tensor(float(self.count), dtype=own.dtype, device=own.device)
        common = own * seen
        all_reduce([common, seen])
        common /= seen.clamp(min=1)
        moved = own - common
        first = self._sum[:, :, None] * moved[:, None, :]
        self._outer += first + first.transpose(1, 2) + self.count * moved[:, :, None] * moved[:, None, :]
        self._sum += self.count * moved
        self.shift = common if bool(common.any()) else None

    def reduce(self) -> None:
        """Adds up what the processes saw; see :mod:`corank.processes`."""
        if number_of_processes() == 1:
            return
        self._share_shift()
        seen = torch.tensor([self.count, self.samples, self._positions], dtype=torch.int64, device=self._sum.device)
        all_reduce([self._outer, self._sum, seen])
        self.count, self.samples, self._positions = (int(number) for number in seen)
        self._derived.clear()

    @property
    def is_finite(self) -> bool:
        """Whether what was summed up, and its squares, are finite in float32."""
        energies = self._outer.diagonal(dim1=1, dim2=2)
        return bool(torch.isfinite(self._sum).all()) and bool(torch.isfinite(energies).all())

    @property
    def matrix(self) -> Tensor:
        """``E[x x^T]``, ``(G, C, C)`` float32."""
        found = self._shifted_matrix
        if self.shift is None:
            return found
        crossed = self.shifted_mean[:, :, None] * self.shift[:, None, :]
        return found + crossed + crossed.transpose(1, 2) + self.shift[:, :, None] * self.shift[:, None, :]

    @property
    def _shifted_matrix(self) -> Tensor:
        """``E[(x - shift)(x - shift)^T]``, ``(G, C, C)`` float32."""
        if not self._mirrored:
            _mirror(self._outer)
            self._mirrored = True
        return self._outer / max(self.count, 1)

    @property
    def shifted_mean(self) -> Tensor:
        """``E[x] - shift``, ``(G, C)`` float32."""
        return self._sum / max(self.count, 1)

    @property
    def mean(self) -> Tensor:
        """``E[x]``, ``(G, C)`` float32."""
        return self.shifted_mean if self.shift is None else self.shifted_mean + self.shift

    @property
    def covariance(self) -> Tensor:
        """``E[x x^T] - E[x] E[x]^T``, ``(G, C, C)`` float32."""
        mean = self.shifted_mean
        return self._shifted_matrix - mean[:, :, None] * mean[:, None, :]

    @property
    def positions(self) -> float:
        """Output positions of one sample, averaged over the batches seen."""
        return self._positions / max(self.samples, 1)


class Gram(_Moments):
    """Second moment of a layer's inputs as its weight's columns see them (the "Hessian" of GPTQ, halved)."""

    def unknown(self) -> Gram:
        """What stands in for inputs that nobody has seen: all alike, so that weights are rounded for their own sake, at
        no position, so that nothing there is worth an adapter. Its count is 0."""
        groups, columns = self._sum.shape
        unknown = Gram(groups, columns, self._sum.device)
        unknown._outer += torch.eye(columns, dtype=torch.float32, device=self._sum.device)
        return unknown

    def centred(self) -> Gram:
        """The same inputs less their mean: what matters once the bias absorbs the mean error.

        Inputs that vary by less than float32 can tell from their mean count as constant.
        """
        groups, columns = self._sum.shape
        centred = Gram(groups, columns, self._sum.device)
        centred.count, centred.samples, centred._positions = self.count, self.samples, self._positions
        covariance = self.covariance
        variances, summed = (part.diagonal(dim1=1, dim2=2) for part in (covariance, self._shifted_matrix))
        varies = (variances > _NOISE * summed) & (variances > _CONSTANT * self.mean.square())
        centred._outer = covariance * (varies[:, :, None] & varies[:, None, :]) * max(self.count, 1)
        return centred


class OutputGradient(_Moments):
    """Second moment of the loss gradient at a layer's output: empirical Fisher information, per position."""

    def of(self, rows: slice) -> OutputGradient:
        """That of some of each group's outputs."""
        part, _ = copy.copy(self), self.matrix  # which fills what stands below the diagonal
        part._derived, part._outer, part._sum = {}, self._outer[:, rows, rows], self._sum[:, rows]
        part._mirrored, part.shift = True, None if self.shift is None else self.shift[:, rows]
        return part


def _far_mean(rows: Tensor) -> Tensor | None:
    """Means ``(G, C)`` of rows ``(G, N, C)`` where they dwarf the variance, zero elsewhere; None for zeros alone."""
    if not rows.shape[1]:
        return None
    variance, mean = torch.var_mean(rows, 1, correction=0)
    far = mean.square() > _FAR * variance
    return torch.where(far, mean, 0.0) if bool(far.any()) else None


def _blocks(width: int, device: torch.device) -> Iterator[tuple[int, int]]:
    """Where blocks of columns begin and end."""
    size = max(_NARROWEST if device.type == "cpu" else _NARROWEST_ELSEWHERE, -(-width // _BLOCKS))
    yield from ((start, min(start + size, width)) for start in range(0, width, size))


def _add_upper(total: Tensor, rows: Tensor) -> None:
    """Adds ``rows^T rows`` of ``(G, N, C)`` to the blocks of ``total`` on and above the diagonal."""
    for start, end in _blocks(total.shape[-1], total.device):
        total[:, start:end, start:].baddbmm_(rows[:, :, start:end].transpose(1, 2), rows[:, :, start:])


def _mirror(total: Tensor) -> None:
    """Fills the blocks below the diagonal from those above it."""
    for start, end in _blocks(total.shape[-1], total.device):
        total[:, end:, start:end] = total[:, start:end, end:].transpose(1, 2)
