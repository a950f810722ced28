"""QPAN: proximal averaging, unrolled (arXiv 2105.06211). A reconstruction: only title and abstract could be read."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.errors import ModelError
from corank.models.proximal import PROXIMAL

__all__ = ["QPAN", "ProximalAverage"]


class ProximalAverage(nn.Module):
    """A convex combination of proximal maps, its weights and each map's threshold learned.

    For convex penalties the proximal average's own map (Bauschke et al. 2008); with MCP or SCAD a heuristic.

    Args:
        penalties: of :data:`~corank.models.proximal.PROXIMAL`.
        threshold: where all of them start, above 0; they stay positive by their form (softplus).
    """

    def __init__(self, penalties: Sequence[str] = ("l1", "mcp", "scad"), threshold: float = 0.05) -> None:
        super().__init__()
        unknown = [name for name in penalties if name not in PROXIMAL]
        if unknown or not penalties:
            raise ModelError(f"penalties={tuple(penalties)!r}: some of {', '.join(PROXIMAL)}, e.g. ('l1', 'mcp')")
        if not threshold > 0:
            raise ModelError(f"threshold={threshold!r}: a positive number, e.g. 0.05")
        self.penalties = tuple(penalties)
        start = torch.tensor(threshold, dtype=torch.float32).expm1().log()  # softplus gives the threshold back
        self.scale = nn.Parameter(start.repeat(len(self.penalties)))
        self.share = nn.Parameter(torch.zeros(len(self.penalties), dtype=torch.float32))

    def forward(self, values: Tensor) -> Tensor:
        """``(N, P)`` to ``(N, P)``."""
        thresholds, shares = F.softplus(self.scale), self.share.softmax(0)
        mapped = [PROXIMAL[name](values, thresholds[place]) for place, name in enumerate(self.penalties)]
        return (torch.stack(mapped, dim=-1) * shares).sum(-1)


class _Estimate(nn.Module):
    """ADMM's ``x``, its matrices learned: of the measurements alone, or of the split variables too."""

    def __init__(self, measured: Tensor, split: Tensor | None) -> None:
        super().__init__()
        self.measured = _linear(measured)
        self.split = None if split is None else _linear(split)

    def forward(self, measured: Tensor, difference: Tensor | None = None) -> Tensor:
        x = self.measured(measured)
        return x if self.split is None else x + self.split(difference)


class QPAN(nn.Module):
    """Recovers signals ``x`` from fewer measurements ``y = A x``, where ``D x`` is sparse.

    ``layers`` iterations of ADMM for ``min |y - A x|^2 / 2 + sum_k w_k g_k(D x)``, each with matrices, thresholds and
    averaging weights of its own that start at the iteration's: untrained, with one penalty, the network *is* ADMM.
    The matrices are plain linear layers, so :func:`corank.quantize` codes and :func:`corank.train` trains them at any
    width; thresholds and averages stay float.

    Args:
        measuring: ``A (m, n)``.
        analysis: ``D (p, n)``.
        layers: iterations.
        average: what each iteration's starts as; None for that of l1, MCP and SCAD.
        rho: weight of the split, above 0; what it gives is learned on.

    Raises:
        ModelError: for matrices that do not fit, a rho that is not positive, or ``A`` and ``D`` that leave a direction
            of ``x`` unseen by both.
    """

    def __init__(
        self,
        measuring: Tensor,
        analysis: Tensor,
        layers: int = 10,
        average: ProximalAverage | None = None,
        rho: float = 1.0,
    ) -> None:
        super().__init__()
        if measuring.dim() != 2 or analysis.dim() != 2 or measuring.shape[1] != analysis.shape[1]:
            given = f"{tuple(measuring.shape)} and {tuple(analysis.shape)}"
            raise ModelError(f"measuring and analysis of shapes {given}: (m, n) and (p, n), e.g. (16, 64) and (64, 64)")
        if layers < 1 or not rho > 0:
            raise ModelError(
                f"layers={layers!r}, rho={rho!r}: one layer or more and a positive rho, e.g. QPAN(A, D, 10)"
            )
        a, d = measuring.double(), analysis.double()
        system = a.T @ a + rho * d.T @ d
        if torch.linalg.cond(system) > 1e12:
            raise ModelError("some direction of x is seen neither by measuring nor by analysis: give D more rows")
        inverse = torch.linalg.inv(system)
        seen, split = (inverse @ a.T).float(), (rho * inverse @ d.T).float()
        # the first estimate has no split variables yet: they are zero
        self.estimates = nn.ModuleList(_Estimate(seen, split if place else None) for place in range(layers + 1))
        self.analysed = nn.ModuleList(_linear(d.float()) for _ in range(layers))
        self.averages = nn.ModuleList(copy.deepcopy(average or ProximalAverage()) for _ in range(layers))

    def forward(self, measured: Tensor) -> Tensor:
        """Measurements ``(N, m)`` to signals ``(N, n)``."""
        x: Tensor = self.estimates[0](measured)
        dual: Tensor | float = 0.0
        for analysed, average, estimate in zip(self.analysed, self.averages, self.estimates[1:], strict=True):
            point = analysed(x) + dual
            split = average(point)
            dual = point - split
            x = estimate(measured, split - dual)
        return x


def _linear(matrix: Tensor) -> nn.Linear:
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(matrix)
    return layer
