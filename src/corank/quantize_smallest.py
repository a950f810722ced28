"""The smallest file that keeps the accuracy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from corank.calibration.collect import Progress
from corank.codecs import Codec
from corank.data import ImageSet, TokenSet
from corank.errors import BudgetError, ConfigError
from corank.evaluation import Evaluation, evaluate
from corank.presets import chosen_preset
from corank.quantize import quantize
from corank.storage.artifact import serialized

__all__ = ["CANDIDATES", "Smallest", "quantize_smallest"]

CANDIDATES: tuple[tuple[int, float], ...] = (
    (2, 0.0), (2, 0.15), (2, 0.3), (2, 0.5), (3, 0.0), (3, 0.15), (3, 0.3), (4, 0.0), (4, 0.15), (4, 0.3),
    (5, 0.0), (6, 0.0), (8, 0.0),
)  # fmt: skip
"""(bits, budget) in order of size."""


@dataclass(frozen=True)
class Smallest:
    """What was found.

    Attributes:
        model: the quantized model.
        drop: points lost against the float model; of a language model, nats per token.
        tried: (bits, budget, drop, bytes) of every candidate tried, in order.
    """

    model: nn.Module
    drop: float
    tried: tuple[tuple[int, float, float, int], ...]


def quantize_smallest(
    model: nn.Module,
    data: Any,
    max_drop: float,
    evaluation: ImageSet | TokenSet | Iterable[Any],
    *,
    codec: str | Codec | None = None,
    preset: str = "fast",
    search: str | None = None,
    activations: int | None = None,
    samples: int | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    reference: str | None = None,
    progress: Progress | None = None,
) -> Smallest:
    """Finds the smallest file that loses at most ``max_drop`` points.

    Bisects those of :data:`CANDIDATES` that the codec has the width for, taking accuracy to grow with size: about
    four quantizations.

    Args:
        model, data, codec, preset, search, activations, samples, seed, device, reference, progress: as for
            :func:`corank.quantize`.
        max_drop: points of top-1 that may be lost; of a language model, nats per token that may be added; with
            unlabelled ``evaluation``, percent of samples on which the quantized model may choose another class than
            the float one.
        evaluation: scored for each candidate; must be possible to iterate over again. Not the calibration data.

    Raises:
        ConfigError: for a negative ``max_drop``. BudgetError: when not even the most bits keep within it.
    """
    if not max_drop >= 0:
        raise ConfigError(f"max_drop={max_drop!r}: points that may be lost, e.g. max_drop=0.5")
    base = evaluate(model, evaluation, model)
    tried: list[tuple[int, float, float, int]] = []
    best: tuple[float, nn.Module] | None = None
    widths = chosen_preset(preset, codec, "mse").widths
    candidates = [candidate for candidate in CANDIDATES if candidate[0] in widths] or [(widths[0], 0.0)]
    low, high = 0, len(candidates) - 1
    while low <= high:
        middle = (low + high) // 2
        bits, budget = candidates[middle]
        candidate = quantize(
            model, data, bits=bits, budget=budget, codec=codec, preset=preset, search=search, activations=activations,
            samples=samples, seed=seed, device=device, reference=reference, progress=progress,
        )  # fmt: skip
        scored = evaluate(candidate, evaluation, model)
        drop = _drop(base, scored)
        tried.append((bits, budget, drop, len(serialized(candidate))))
        if drop <= max_drop:
            best, high = (drop, candidate), middle - 1
        else:
            low = middle + 1
    if best is None:
        least = min(drop for _, _, drop, _ in tried)
        raise BudgetError(
            f"no file keeps within {max_drop}; the least lost was {least:.2f} at {candidates[-1][0]} bits"
        )
    return Smallest(best[1], best[0], tuple(tried))


def _drop(base: Evaluation, scored: Evaluation) -> float:
    if base.nats is not None and scored.nats is not None:
        return scored.nats - base.nats
    if base.top1 is None or scored.top1 is None:
        return 100.0 - (scored.agreement or 0.0)
    return base.top1 - scored.top1
