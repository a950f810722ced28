"""The smallest file that keeps the accuracy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from corank.autograd import recording
from corank.codecs import Codec
from corank.compiled import uncompiled
from corank.config import check_progress
from corank.data import ImageSet, TokenSet
from corank.devices import device_of
from corank.errors import BudgetError, ConfigError
from corank.losses import Loss
from corank.presets import AUTO, Preset, chosen_preset, chosen_search
from corank.processes import init_processes
from corank.progress import Progress, labelled
from corank.quantization.encode import drafted, encode, redrafted
from corank.quantization.request import Asked, QuantizeRequest, Width
from corank.quantization.template import LayerOverride, PlanTemplate, check_fitted
from corank.refine import PostTraining, Refinement
from corank.search import Search
from corank.storage.artifact import serialized
from corank.verbs.arguments import check_kinds, check_range
from corank.verbs.finishing import finish
from corank.verbs.opening import ContextOptions, open_context, statistics_of, with_checkpoint
from corank.verbs.quantize import identity_of, origin_of
from corank.verbs.scoring import Scorer, drop

__all__ = ["CANDIDATES", "RATES", "Smallest", "Trial", "quantize_smallest"]

CANDIDATES: tuple[tuple[int, float], ...] = (
    (2, 0.0), (2, 0.15), (2, 0.3), (2, 0.5), (3, 0.0), (3, 0.15), (3, 0.3), (4, 0.0), (4, 0.15), (4, 0.3),
    (5, 0.0), (6, 0.0), (8, 0.0),
)  # fmt: skip
"""(bits, budget) in order of size."""

RATES: tuple[float, ...] = (0.5, 0.75, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.3, 2.6, 3.0, 3.5, 4.0, 5.0, 6.0)
"""Bits a weight after entropy coding, tried with ``rate="auto"``."""


class Trial(NamedTuple):
    """One file that was tried.

    Attributes:
        bits: of a code or, with ``rate="auto"``, the rate.
        budget: extra bits per weight for adapters.
        drop: points lost, as :class:`Smallest` has them.
        stored_bytes: of the file.
    """

    bits: float
    budget: float
    drop: float
    stored_bytes: int


@dataclass(frozen=True)
class Smallest:
    """What was found.

    Attributes:
        model: the quantized model.
        drop: points lost against the float model; of a language model, nats per token.
        tried: every candidate tried, in order.
    """

    model: nn.Module
    drop: float
    tried: tuple[Trial, ...]


@uncompiled()
@recording()
def quantize_smallest(
    model: nn.Module,
    data: Any,
    max_drop: float,
    evaluation: ImageSet | TokenSet | Iterable[Any],
    *,
    rate: str | None = None,
    layers: Mapping[str, LayerOverride] | None = None,
    codec: str | Codec | None = None,
    preset: str | Preset = "fast",
    search: str | Search | None = None,
    adapter_bits: int | None = None,
    activations: int | None = None,
    activation_range: str = "mse",
    all_layers: bool = False,
    refinement: PostTraining | None = None,
    loss: Loss | None = None,
    samples: int | None = None,
    batch_size: int = 32,
    fold: bool = True,
    rotate: str | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    reference: str | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> Smallest:
    """Finds the smallest file that loses at most ``max_drop`` points.

    Bisects those of :data:`CANDIDATES` that the codec has the width for, or :data:`RATES`, taking accuracy to grow with
    size: about four quantizations.

    Args:
        model, data, layers, codec, preset, search, adapter_bits, activations, activation_range, all_layers, refinement,
            loss, samples, batch_size, fold, rotate, seed, device, reference, progress: as for :func:`corank.quantize`.
        max_drop: points of top-1 that may be lost; of a language model, nats per token that may be added; with
            unlabelled ``evaluation``, percent of samples on which the quantized model may choose another class than
            the float one.
        evaluation: scored for each candidate; must be possible to iterate over again. Not the calibration data.
        rate: "auto" tries codes of a rate (:class:`~corank.codecs.RateUniform`), whose files are the smallest at equal
            accuracy; None tries codes of fixed width and adapters.
        checkpoint: a folder that keeps what is done; the same call with the same folder goes on from there, to the
            identical result.

    Raises:
        ConfigError: for a negative ``max_drop`` and for another ``rate``. BudgetError: when not even the most bits keep
            within it.
    """
    check_progress(progress)
    if not max_drop >= 0:
        raise ConfigError(f"max_drop={max_drop!r}: points that may be lost, e.g. max_drop=0.5")
    if not (rate is None or rate == AUTO):
        raise ConfigError(
            f"rate={rate!r}: quantize_smallest finds the rate; give rate='auto', or call quantize(..., rate={rate!r})"
        )
    check_kinds(model, layers=layers, refinement=refinement, device=device)
    init_processes()
    Asked(rate=rate, codec=codec, activations=activations).check()
    recipe = chosen_preset(preset, codec, activation_range, rate)
    check_range(activations, activation_range, None, [recipe.layer, recipe.edge, *(layers or {}).values()])
    finder = chosen_search(recipe, search)
    how = refinement or recipe.refinement or Refinement(iterations=0)
    template = PlanTemplate(recipe, layers or {}, adapter_bits, all_layers, activations)
    candidates = tuple((one, 0.0) for one in RATES) if rate else _widths(recipe)
    request = QuantizeRequest(template, Width(), finder, how, origin_of(reference, preset, search, finder))
    context = open_context(model, data, ContextOptions(samples, batch_size, seed, device, fold, loss, progress, rotate))
    first = drafted(_asked(request, rate, *candidates[-1]), context)
    check_fitted(first.plan)
    context = with_checkpoint(context, checkpoint, lambda: identity_of(request, first))
    statistics, scorer = statistics_of(context, first.plan, keep=True), Scorer(model, evaluation)  # once for all

    def attempt(bits: float, budget: float) -> tuple[Trial, nn.Module]:
        started, own = time.perf_counter(), context.within(f"{bits:g}+{budget:g}")
        own = replace(own, progress=labelled(own.progress, f"{bits:g} bits" + (f" + {budget:g}" if budget else "")))
        asked = _asked(request, rate, bits, budget)
        coded = encode(asked, redrafted(first, asked, own), statistics, own)
        candidate = finish(coded, context.model, how, own, started).to(device_of(model))
        lost = drop(scorer.found, scorer(candidate, own.progress))
        return Trial(bits, budget, lost, len(serialized(candidate))), candidate

    return _bisected(candidates, attempt, max_drop)


def _asked(request: QuantizeRequest, rate: str | None, bits: float, budget: float) -> QuantizeRequest:
    """The request for a candidate: a rate, or a width with a budget."""
    if rate:
        return replace(request.at_rate(bits), target=Width(None, budget))
    return replace(request, target=Width(int(bits), budget))


def _bisected(
    candidates: Sequence[tuple[float, float]],
    attempt: Callable[[float, float], tuple[Trial, nn.Module]],
    max_drop: float,
) -> Smallest:
    """The first of ``candidates``, the smallest first, that keeps within the drop, as later ones are taken to do."""
    tried: list[Trial] = []
    best: tuple[nn.Module, float] | None = None
    low, high = 0, len(candidates) - 1
    while low <= high:
        middle = (low + high) // 2
        trial, candidate = attempt(*candidates[middle])
        tried.append(trial)
        if trial.drop <= max_drop:
            best, high = (candidate, trial.drop), middle - 1
        else:
            low = middle + 1
    if best is None:
        least = min(trial.drop for trial in tried)
        raise BudgetError(
            f"no file keeps within {max_drop}; the least lost was {least:.2f} at {candidates[-1][0]:g} bits"
        )
    return Smallest(*best, tuple(tried))


def _widths(recipe: Preset) -> tuple[tuple[float, float], ...]:
    """(bits, budget) of the widths that its codec has, the smallest first."""
    return tuple(one for one in CANDIDATES if one[0] in recipe.widths) or ((recipe.widths[0], 0.0),)
