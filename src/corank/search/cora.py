"""CoRa's search (arXiv 2408.00923): a trainable cut-off for each layer, a Butterworth mask over its directions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from corank.calibration import Teacher, mean_loss, outputs_of, run
from corank.errors import ConfigError
from corank.losses import distance
from corank.search.allocation import Allocation
from corank.search.base import Search
from corank.search.composed import ComposedModel
from corank.search.greedy import Greedy, grow, shrink
from corank.search.problem import AdaptableLayer, AllocationProblem, spent_bits

__all__ = ["CoRa", "butterworth", "compose", "harden"]


def butterworth(cutoff: Tensor, full_rank: int, order: int = 4) -> Tensor:
    """The low-pass mask ``t_i = (1 + (i / (R c))^(2n))^(-1/2)``, ``i = 0 .. R - 1``, divided by its detached maximum.

    Args:
        cutoff: scalar ``c``, the normalised cut-off rank, above 0.
        full_rank: ``R``.
        order: ``n``; the paper takes 4.

    Returns:
        ``(R,)`` float32, 1 at ``i = 0``, decreasing in i, increasing in c; ``t(R c) = 2^(-1/2)``.
    """
    place = torch.arange(full_rank, dtype=torch.float32, device=cutoff.device)
    # Through logarithms: the power of a small cut-off overflows float32, and its gradient would be NaN.
    power = 2 * order * (place.log() - (full_rank * cutoff).clamp(min=1e-3).log())
    mask = torch.exp(-0.5 * F.softplus(power))
    return mask / mask.max().detach()


def compose(layer: AdaptableLayer, mask: Tensor) -> Tensor:
    """The weight ``W_q + (U * t^2) V`` in the layer's own shape: both square-root factors are masked."""
    left = layer.directions.left * mask.square()
    return layer.geometry.from_matrix(torch.baddbmm(layer.coded, left, layer.directions.right))


def harden(cutoffs: Mapping[str, float], problem: AllocationProblem, hardening: str, minimum: int) -> dict[str, int]:
    """Ranks ``ceil(R c)`` or ``round(R c)``, at least ``minimum``, shrunk where it costs least until they fit."""
    ranks = {}
    for name, cutoff in cutoffs.items():
        full = problem.layers[name].full_rank
        place = full * cutoff
        rank = math.ceil(place - 1e-6) if hardening == "ceil" else math.floor(place + 0.5)
        ranks[name] = max(min(minimum, full), min(full, rank))
    return shrink(problem, ranks, minimum)


@dataclass(frozen=True)
class CoRa(Search):
    """Searches the cut-off ranks by gradient under a budget.

    Loss: ``divergence(float, quantized) + gamma * exp(relu(sum_l c_l p_l / P - budget))``, with p_l the layer's
    adapter parameters at full rank and P the quantized weights; Adam, gradients clipped, c clamped after each step,
    norms in evaluation mode (a reconstruction: see the documentation).

    Args:
        iterations: gradient steps at most.
        batch_size: samples a step.
        learning_rate: Adam's.
        clip: bound of the gradient's norm.
        gamma: weight of the budget's penalty.
        order: of the Butterworth mask.
        start: the first value of every c, "greedy": start at the closed-form allocation, or ranks by layer name.
        hardening: "ceil" (the paper's) or "round".
        minimum: least rank of a layer after hardening, before shrinking to the budget; 1 in the paper.
        fill: spend what the hardened ranks leave of the budget, by the closed form.
        keep_best: of the start (if it is ranks) and the found ranks, keep the one of smaller divergence on the samples.
    """

    iterations: int = 250
    batch_size: int = 32
    learning_rate: float = 0.01
    clip: float = 0.2
    gamma: float = 1.0
    order: int = 4
    start: float | str | Mapping[str, int] = "greedy"
    hardening: str = "round"
    minimum: int = 0
    fill: bool = True
    keep_best: bool = True

    def __post_init__(self) -> None:
        given = self.start
        if (
            given != "greedy"
            and not isinstance(given, Mapping)
            and not (isinstance(given, (int, float)) and 0 < given <= 1)
        ):
            raise ConfigError(f"start={self.start!r}: 'greedy' or a number above 0 and at most 1, e.g. CoRa(start=0.9)")
        if self.hardening not in ("ceil", "round"):
            raise ConfigError(f"hardening={self.hardening!r}: 'ceil' or 'round'")
        if self.iterations < 1 or self.batch_size < 1 or self.order < 1 or self.minimum < 0:
            raise ConfigError("CoRa: iterations, batch_size and order are at least 1, minimum at least 0")
        if not (self.learning_rate > 0 and self.clip > 0 and self.gamma >= 0):
            raise ConfigError("CoRa: learning_rate and clip are positive, gamma is not negative")

    @classmethod
    def paper(cls) -> CoRa:
        """The paper's settings: c from 0.9, 250 steps of 32 samples, rank at least 1, ceil, no closed form."""
        return cls(start=0.9, hardening="ceil", minimum=1, fill=False, keep_best=False)

    def __call__(self, problem: AllocationProblem) -> Allocation:
        if not problem.layers or problem.budget_bits <= 0:
            return Allocation(dict.fromkeys(problem.layers, 0))
        greedy = self._first(problem)
        run_ = _Run(self, problem, greedy)
        history = tuple(run_.step(number) for number in range(self.iterations))
        ranks = harden(run_.values(), problem, self.hardening, self.minimum)
        if self.fill:
            ranks = grow(problem, ranks)
        if greedy is not None and self.keep_best and run_.divergence(greedy) <= run_.divergence(ranks):
            ranks = dict(greedy)
        return Allocation(ranks, history, self.iterations)

    def _first(self, problem: AllocationProblem) -> dict[str, int] | None:
        """The ranks to start from; None for a number."""
        if isinstance(self.start, Mapping):
            return shrink(
                problem, {name: min(self.start.get(name, 0), layer.full_rank) for name, layer in problem.layers.items()}
            )
        return dict(Greedy()(problem).ranks) if self.start == "greedy" else None


class _Run:
    """One search under way."""

    def __init__(self, search: CoRa, problem: AllocationProblem, greedy: Mapping[str, int] | None) -> None:
        self.search, self.problem = search, problem
        self.composed = ComposedModel(problem.context.model, {**problem.layers, **problem.fixed})
        for name, weight in problem.fixed.items():
            self.composed.set_weight(name, weight)
        self.device = self.composed.device
        names = list(problem.layers)
        fulls = [problem.layers[name].full_rank for name in names]
        self.least = torch.tensor(
            [1 / full if search.minimum else 0.5 / full for full in fulls], dtype=torch.float32, device=self.device
        )
        if greedy is None:
            assert isinstance(search.start, (int, float))
            begin = torch.full((len(names),), float(search.start), dtype=torch.float32, device=self.device)
        else:
            begin = torch.tensor(
                [greedy[n] / f for n, f in zip(names, fulls, strict=True)], dtype=torch.float32, device=self.device
            )
        self.cutoffs = torch.nn.Parameter(torch.maximum(begin, self.least))
        self.costs = torch.tensor(
            [full * problem.layers[name].bits_per_rank for name, full in zip(names, fulls, strict=True)],
            device=self.device,
        )
        self.names, self.fulls = names, fulls
        self.optimizer = torch.optim.Adam([self.cutoffs], lr=search.learning_rate)
        generator = torch.Generator().manual_seed(problem.context.seed)
        samples = problem.context.samples
        self.draws = samples.draws(min(search.batch_size, len(samples)), generator)
        self.load = samples.loader()
        self.teacher = Teacher(problem.context.model, samples, problem.context.loss)

    def step(self, number: int) -> dict[str, float]:
        problem, search = self.problem, self.search
        draw = next(self.draws)
        for place, name in enumerate(self.names):
            mask = butterworth(self.cutoffs[place], self.fulls[place], search.order)
            self.composed.set_weight(name, compose(problem.layers[name], mask))
        batch = self.load(draw)
        output = run(self.composed.model, batch, self.device)
        divergence = distance(problem.context.loss, output, self.teacher(draw, self.load), batch)
        # In units of parameters per weight, as the paper's: bits / m.
        extra = (self.cutoffs * self.costs).sum() / problem.weights / problem.adapter_bits
        budget = problem.budget_bits / problem.weights / problem.adapter_bits
        loss = divergence + search.gamma * torch.exp(torch.relu(extra - budget))
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([self.cutoffs], search.clip)
        self.optimizer.step()
        with torch.no_grad():
            self.cutoffs.copy_(torch.minimum(torch.maximum(self.cutoffs, self.least), torch.ones_like(self.least)))
        problem.context.progress("searching ranks", number + 1, search.iterations)
        return {
            "iteration": number + 1,
            "loss": float(loss.detach()),
            "divergence": float(divergence.detach()),
            "extra_bits": float(extra.detach()) * problem.adapter_bits,
        }

    def values(self) -> dict[str, float]:
        return {name: float(value) for name, value in zip(self.names, self.cutoffs.detach(), strict=True)}

    def divergence(self, ranks: Mapping[str, int]) -> float:
        """Mean divergence of the truncated adapters over the first samples."""
        assert spent_bits(self.problem, ranks) <= self.problem.budget_bits
        context = self.problem.context
        batches = context.samples.rebatched(100).take(1000).batches
        with torch.no_grad():
            for name, rank in ranks.items():
                layer = self.problem.layers[name]
                mask = (torch.arange(layer.full_rank, device=self.device) < rank).float()
                self.composed.set_weight(name, compose(layer, mask))
        references = outputs_of(context.model, batches)
        return mean_loss(self.composed.model, batches, references, context.loss, self.device)
