"""How far the straight-through gradient is from the true one, of the mean loss under random rounding.

Rounding has no gradient; the mean of the loss over stochastic roundings of a weight has one, since the chance of each
value moves with the weight. Straight-through training follows the mean of the gradients at the rounded weights instead.
Where the loss is ``w^T H w / 2`` both are known: they differ by ``H_ii step (1/2 - p_i)``, with ``p_i`` the chance of
the upper value. Here they are compared by finite differences; the questions are those of arXiv 2303.15464.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from corank.analysis.answers import all_inputs, answers_of, log_chances
from corank.analysis.compared import coded_layers, rounded_layers
from corank.calibration import Context
from corank.codecs import Codebook
from corank.rounding.stochastic import Stochastic
from corank.watching import evaluating

__all__ = ["Dithered", "check_gradients", "check_rounder", "straight_through"]

DRAWS = 24  # a third of them chooses the direction of differences, the others are compared
MOVED = 0.05  # that a difference is to move the loss by, on either side: more bends it, less is all noise
SMALLEST, LARGEST = 1e-3, 0.25  # of a difference, in steps of the quantizer


@dataclass(frozen=True)
class Dithered:
    """A loss of weights that are rounded at random.

    Attributes:
        loss: of matrices by name, differentiable.
        weights: float ``(R, C)`` by name.
        books: the values that each may take.
        rounder: of the draws.
    """

    loss: Callable[[Mapping[str, Tensor]], Tensor]
    weights: Mapping[str, Tensor]
    books: Mapping[str, Codebook]
    rounder: Stochastic = field(default_factory=Stochastic)

    def rounded(self, name: str, draw: int, shift: Tensor | None = None) -> Tensor:
        """One weight, rounded by its own draw of that number, the same for every ``shift`` that is added before."""
        weight, book = self.weights[name], self.books[name]
        moved = weight if shift is None else weight + shift
        return book.values(self.rounder.drawing_for(f"{name} {draw}")(moved, book, {}))

    def all_rounded(self, draw: int) -> dict[str, Tensor]:
        """All weights of one draw."""
        return {name: self.rounded(name, draw) for name in self.weights}

    def steps(self, name: str) -> tuple[Tensor, Tensor]:
        """Of each weight the distance of the values around it, 0 beyond the last; and the chance of the upper one."""
        low, high = (self.books[name].values(codes) for codes in self.books[name].neighbours(self.weights[name]))
        step = high - low
        return step, torch.where(step > 0, (self.weights[name] - low) / step.clamp(min=1e-30), 0.0).clamp(0, 1)


def check_rounder(dithered: Dithered, draws: int = DRAWS) -> list[dict[str, Any]]:
    """Whether stochastic rounding is what it should be, layer by layer, over weights within their range.

    Returns:
        For each layer ``mean_error`` in standard errors (within a few of 0 where it is unbiased), ``variance`` over
        ``step^2 p (1 - p)`` (1 in the mean), ``variance_of_step``, the mean squared error over the mean squared step
        (at most 1/4), ``clipped``, the share of weights beyond the range, and ``noise_like_before``, the correlation
        with the noise of the layer before in standard errors (within a few of 0 where each layer has its own).
    """
    found, last = [], torch.zeros(0, dtype=torch.float32)
    for name, weight in dithered.weights.items():
        step, chance = dithered.steps(name)
        inside = step > 0
        variance = (step.square() * chance * (1 - chance))[inside].double()
        errors = torch.stack([(dithered.rounded(name, draw) - weight)[inside] for draw in range(draws)]).double()
        noise = (errors[0] / variance.sqrt().clamp(min=1e-30))[variance > 0]
        both = min(len(noise), len(last))
        alike = float((noise[:both] * last[:both].to(noise)).sum()) / math.sqrt(both) if both else 0.0
        whole = float(variance.sum())
        found.append({
            "name": name, "weights": weight.numel(), "clipped": 1 - float(inside.double().mean()),
            "mean_error": float(errors.sum()) / math.sqrt(max(draws * whole, 1e-300)),
            "variance": float(errors.square().sum()) / max(draws * whole, 1e-300),
            "variance_of_step": float(errors.square().mean() / step[inside].double().square().mean().clamp(min=1e-300))
            if bool(inside.any()) else 0.0,
            "noise_like_before": alike,
        })  # fmt: skip
        last = noise
    return found


def check_gradients(
    dithered: Dithered, draws: int = DRAWS, report: Callable[[str], None] = lambda _name: None
) -> list[dict[str, Any]]:
    """The straight-through gradient of each layer beside finite differences of the mean loss.

    Both are slopes along one direction: every weight moves by one step against the sign of the gradient that a third of
    the draws gives; the others give both slopes, so that no noise is counted as slope. Differences use the same draws
    on both sides, and go as far as the straight-through slope says that the loss moves by 0.05.

    Returns:
        For each layer ``slope`` and ``slope_error`` (of the mean loss, and its standard error), ``straight_through`` of
        the same kind, what that has more, ``bias`` and ``bias_error`` (smaller: the draws are the same), ``ratio`` and
        ``ratio_error``, ``step`` (of the differences), ``noise`` (variance of one draw's gradient over the mean
        gradient's square) and ``nearest`` (cosine of the gradient at the nearest values with the mean).
    """
    rounded = [dithered.all_rounded(draw) for draw in range(draws)]
    gradients = [_gradient(dithered, one) for one in rounded]
    nearest = {name: book.values(book.nearest(dithered.weights[name])) for name, book in dithered.books.items()}
    at_nearest = _gradient(dithered, nearest)
    chosen, found = max(1, draws // 3), []
    for name in dithered.weights:
        report(name)
        own = torch.stack([one[name] for one in gradients])
        mean, steps = own.mean(0), dithered.steps(name)[0]
        direction = steps * own[:chosen].mean(0).sign()
        through = (own[chosen:] * direction).flatten(1).sum(1).double().cpu()
        most = max(abs(float(through.mean())), _standard_error(through), 1e-9)
        size = min(LARGEST, max(SMALLEST, MOVED / most))
        slopes = torch.tensor(
            [_difference(dithered, rounded[draw], name, draw, size * direction) for draw in range(chosen, draws)],
            dtype=torch.float64,
        )
        found.append({
            "name": name, **_compared(slopes / size, through), "step": size, "noise": _noise(own),
            "nearest": float(F.cosine_similarity(at_nearest[name].flatten(), mean.flatten(), 0)),
        })  # fmt: skip
    return found


def _compared(slopes: Tensor, through: Tensor) -> dict[str, float | None]:
    """Both slopes, by draw, and how far apart they are."""
    slope, bias, error = float(slopes.mean()), float((through - slopes).mean()), _standard_error(through - slopes)
    return {
        "slope": slope, "slope_error": _standard_error(slopes), "straight_through": float(through.mean()),
        "straight_through_error": _standard_error(through), "bias": bias, "bias_error": error,
        "ratio": 1 + bias / slope if slope else None, "ratio_error": abs(error / slope) if slope else None,
    }  # fmt: skip


def _noise(gradients: Tensor) -> float | None:
    """Variance of one draw over the square of the mean, of which few draws hold a part of the variance; None where
    nothing but noise is seen."""
    draws, mean = len(gradients), gradients.mean(0)
    variance = float((gradients - mean).square().sum()) / max(draws - 1, 1)
    square = float(mean.square().sum()) - variance / draws
    return variance / square if square > 0 else None


def _gradient(dithered: Dithered, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    with torch.enable_grad():
        moving = {name: one.detach().clone().requires_grad_() for name, one in weights.items()}
        found = torch.autograd.grad(dithered.loss(moving), list(moving.values()), allow_unused=True)
    return {
        name: torch.zeros_like(one) if own is None else own
        for (name, one), own in zip(moving.items(), found, strict=True)
    }


def _difference(dithered: Dithered, rounded: Mapping[str, Tensor], name: str, draw: int, direction: Tensor) -> float:
    """Half of what one draw's loss changes from one side to the other."""
    ends = []
    with torch.no_grad():
        for side in (1, -1):
            ends.append(float(dithered.loss({**rounded, name: dithered.rounded(name, draw, side * direction)})))
    return (ends[0] - ends[1]) / 2


def _standard_error(values: Tensor) -> float:
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def straight_through(context: Context, labels: Tensor | None, quantized: nn.Module | None, bits: int) -> dict[str, Any]:
    """The rounder and the gradients of a network whose weights are rounded at random, all layers at once.

    Args:
        context: the float network and its samples.
        labels: of the samples; None takes the classes that the float network chooses.
        quantized: gives each layer its codec; None takes ``bits`` bits, uniform.

    Raises:
        DataError, ModelError: for inputs that are not one tensor, and outputs that are no logits.
    """
    inputs, model = all_inputs(context, "straight-through"), context.model
    with torch.no_grad(), evaluating(model):
        right = answers_of(model(inputs), labels)
    coded, left = (rounded_layers(context, bits), {}) if quantized is None else coded_layers(context, quantized)
    weights = {name: context.prepared.weight(name).flatten(0, 1) for name in coded}
    books = {name: coded[name].codec.fit(weights[name]) for name in coded}
    geometries = {name: context.prepared.geometry(name) for name in coded}
    parameters = {id(one): name for name, one in model.named_parameters()}
    places = {name: parameters[id(context.prepared.targets[name].get_parameter("weight"))] for name in coded}

    def loss(matrices: Mapping[str, Tensor]) -> Tensor:
        given = {places[name]: geometries[name].from_matrix(one) for name, one in matrices.items()}
        return F.nll_loss(log_chances(functional_call(model, given, (inputs,))), right)

    dithered, done = Dithered(loss, weights, books, Stochastic(context.seed)), iter(range(len(weights)))
    with evaluating(model):
        rounder = check_rounder(dithered)
        gradients = check_gradients(
            dithered, report=lambda name: context.progress(f"differences of {name}", next(done), len(weights))
        )
    layers = [{**one, **other, "bits": coded[one["name"]].bits} for one, other in zip(rounder, gradients, strict=True)]
    return {
        "layers": layers, "no_theory": {**context.prepared.skipped, **left}, "notes": [], "draws": DRAWS,
        "samples": len(inputs), "labelled": labels is not None, "trial_bits": bits if quantized is None else None,
    }  # fmt: skip
