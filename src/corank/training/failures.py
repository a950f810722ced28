"""What is said of a step that failed, and its undoing: the state before it is what a checkpoint is to hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from corank.calibration import run
from corank.errors import CorankError, TrainingError
from corank.training.state import TrainingState
from corank.watching import evaluating, watched

__all__ = ["Before", "NotFiniteError", "all_finite", "not_finite", "too_large"]


class NotFiniteError(Exception):
    """A number of a step is not finite: its "loss", its "gradient" or its "result"."""


class Before:
    """What a step changes before the optimizer moves anything: buffers, such as norms' statistics, and what penalties
    and callbacks remember."""

    def __init__(self, state: TrainingState) -> None:
        self._state, self._kept = state, dict(state.kept)
        inputs = [layer.inputs for layer in state.layers.values() if layer.inputs is not None]
        buffers = {id(one): one for module in (state.model, *inputs) for one in module.buffers()}
        self._buffers = [(one, one.clone()) for one in buffers.values()]

    @torch.no_grad()
    def restore(self) -> None:
        """Puts all of it back."""
        for buffer, before in self._buffers:
            buffer.copy_(before)
        self._state.kept.clear()
        self._state.kept.update(self._kept)


@torch.no_grad()
def all_finite(tensors: list[Tensor]) -> bool:
    """Whether all numbers of floating tensors on one device are; it waits for the device once."""
    # of float64 in its own dtype: torch does not narrow it
    largest = [
        torch.linalg.vector_norm(one, torch.inf, dtype=torch.promote_types(one.dtype, torch.float32)).double()
        for one in tensors
        if one.numel()
    ]
    return not largest or bool(torch.isfinite(torch.stack(largest)).all())


def not_finite(state: TrainingState, what: str, kept: bool) -> TrainingError:
    """The error of a step with numbers that are not finite: which step, layer and learning rate.

    Args:
        state: before the step, but for gradients.
        what: of the step: its "loss", its "gradient" or its "result".
        kept: whether there is a checkpoint.
    """
    rate, lower = state.optimizer.param_groups[0]["lr"] if state.optimizer else 0.0, state.recipe.optimizer.rate / 4
    known = "; its checkpoint keeps the last good state; a lower rate is another run, with a folder of its own"
    return TrainingError(
        f"the {what} of step {state.step + 1} is not finite at a learning rate of {rate:.3g}{_place(state)}; take a "
        f"lower rate: Optimizer(rate={lower:g}){known if kept else ''}"
    )


def too_large(state: TrainingState, samples: int, kept: bool) -> TrainingError:
    """The error of a step that ran out of memory: what to try.

    Args:
        state: of the training.
        samples: that passed at once.
        kept: whether there is a checkpoint.
    """
    many = f"{samples} samples" if samples > 1 else "one sample"
    halved = f"train(..., parts={samples // 2}) passes half as many, and recompute=True holds less of each"
    way = halved if samples > 1 else "recompute=True holds less, and smaller samples take less"
    goes_on = "; the same checkpoint goes on from the last state" if kept else ""
    return TrainingError(f"step {state.step + 1} ran out of memory with {many} at once; {way}{goes_on}")


def _place(state: TrainingState) -> str:
    """Where the first number that is not finite stands, in words."""
    for name, one in state.model.named_parameters():
        if not all_finite([one]):
            return f": {_layer_of(name)!r} holds numbers that are not"
    first = _first_output(state)
    if first is not None:
        return f": the outputs of {first!r} are not"
    gradients = [(name, one.grad) for name, one in state.model.named_parameters() if one.grad is not None]
    broken = [name for name, gradient in gradients if not all_finite([gradient])]
    return f": the gradient of {_layer_of(broken[-1])!r} is not" if broken else ""  # the last: backward begins there


def _layer_of(parameter: str) -> str:
    """The layer's own name, where its weight trains in a low-bit way."""
    return parameter.partition(".parametrizations.")[0]


@torch.no_grad()
def _first_output(state: TrainingState) -> str | None:
    """The first innermost module of the network whose output for the step's batch is not finite."""
    found: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, _named: object, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and not all_finite([output]):
                found.append(name)

        return hook

    inner = {
        name: module
        for name, module in state.model.named_modules()
        if ".parametrizations" not in name
        and not [one for one, _ in module.named_children() if one != "parametrizations"]
    }
    try:
        with evaluating(state.model), watched(inner, look):
            run(state.model, state.batch, state.device)
    except CorankError:
        return None
    return found[0] if found else None
