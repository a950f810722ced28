"""Scales and biases that few bits tell, where the size of the file is in the loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from corank.training.norms import NormAfter, takes_row_scales
from corank.training.penalties import Rate
from corank.training.state import TrainingState
from corank.training.weights.learned_step import LearnedStepWeight

__all__ = ["are_short", "in_steps", "shorten_numbers", "with_digits"]

_DIGITS = 5  # binary ones of a scale
_PARTS = 16  # that the root mean square of a layer's biases has, at least


def are_short(state: TrainingState) -> bool:
    """Whether the training's files hold such numbers."""
    return any(isinstance(one, Rate) for one in state.recipe.penalties)


@torch.no_grad()
def shorten_numbers(state: TrainingState, norms: Sequence[NormAfter]) -> None:
    """Rounds what a file of a rate holds beside its codes, in place and with the norms that will be folded: scales of
    learned steps to 5 binary digits, biases to whole multiples of a power of two, at most a 16th of their root mean
    square. Whole multiples take few bytes (:mod:`corank.storage.coded_numbers`).

    Does nothing where no penalty is :class:`~corank.training.penalties.Rate`; numbers rounded already stay.

    Args:
        state: in evaluation mode, its norms as they will be folded.
        norms: those to fold.
    """
    if not are_short(state):
        return
    after = {id(norm.layer): norm for norm in norms}
    for layer in state.layers.values():
        weight, norm = layer.weight, after.get(id(layer.module))
        if not isinstance(weight, LearnedStepWeight):
            continue
        folded = norm if norm is not None and takes_row_scales(weight.codec) else None
        scale = weight.book().scale
        stored = scale if folded is None else scale * folded.gain[:, None].to(scale)
        ratio = torch.where(stored > 0, with_digits(stored) / stored, 1.0)
        weight.growth.add_(ratio.log())
        # Codes stay: weights that train rest on thresholds, which any other step would move to their other side.
        layer.rewrite(layer.matrix * weight.book().spread(ratio, layer.matrix.shape[1]))
        bias = layer.module._parameters.get("bias") if folded is None else folded.offset
        if bias is not None:
            moved = in_steps(bias.float()) - bias.float()
            bias.add_(moved.to(bias)) if folded is None else folded.take_bias(moved)


def with_digits(values: Tensor) -> Tensor:
    """The closest numbers of five binary digits."""
    digits, exponent = torch.frexp(values)
    return torch.ldexp((digits * 2**_DIGITS).round() / 2**_DIGITS, exponent)


def in_steps(values: Tensor) -> Tensor:
    """The closest whole multiples of the largest power of two that is at most a 16th of their root mean square; no zero
    is below zero."""
    size = values.square().mean().sqrt() / _PARTS
    if not float(size) > 0:
        return values
    step = 2.0 ** float(size.log2().floor().clamp(min=-24))
    return (values / step).round() * step + 0.0
