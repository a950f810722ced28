"""Gradient l1 regularization (arXiv 2002.07520): a float network that bears being quantized, at any width."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from corank.errors import ConfigError
from corank.processes import all_reduce, number_of_processes
from corank.training.penalties.base import Penalty
from corank.training.synchronized import all_reduced
from corank.watching import watched

if TYPE_CHECKING:
    from corank.training.state import TrainedLayer, TrainingState

__all__ = ["GradientL1", "gradient_l1"]


@dataclass(frozen=True)
class GradientL1(Penalty):
    """``weights * sum_l |dL/dW_l|_1 + outputs * sum_l |dL/dy_l|_1``, ``L`` being the task's loss.

    Rounding moves each number by at most ``d``, and ``L`` by ``d |dL/dn|_1`` at most, to first order. ``W_l`` are the
    weights that train (no biases, no norms), ``y_l`` the outputs of the layers. ``L`` is a mean over the batch, so the
    sum over all of ``y_l``'s gradient is a mean over samples already.

    Args:
        weights, outputs: the factors; 0 leaves a part out.
        from_step: share of the steps after which it is on.
    """

    weights: float = 0.02
    outputs: float = 0.02
    from_step: float = 0.0

    def __post_init__(self) -> None:
        for name in ("weights", "outputs"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value <= 1e6:
                raise ConfigError(f"GradientL1({name}={value!r}): a factor from 0, e.g. GradientL1({name}=0.02)")
        if type(self.from_step) not in (int, float) or not 0 <= self.from_step <= 1:
            raise ConfigError(f"from_step={self.from_step!r}: a share of the steps, 0 to 1, e.g. 0.5")

    def differentiates_twice(self) -> bool:
        return True

    def start(self, state: TrainingState) -> None:
        if self.outputs:
            modules = {name: layer.module for name, layer in state.layers.items()}
            state.closing.enter_context(watched(modules, lambda name: self._hook(state, name)))

    def _hook(self, state: TrainingState, name: str) -> Callable[..., Tensor | None]:
        def keep(module: nn.Module, _inputs: object, _named: object, output: Any) -> Tensor | None:
            # Copies of the network share its hooks; they are none of this training's.
            ours = module is state.layers[name].module and isinstance(output, Tensor)
            if not (ours and self._is_on(state) and torch.is_grad_enabled() and output.requires_grad):
                return None
            state.outputs.setdefault(name, []).append(output)
            # What follows may work in place (ReLU): it gets a copy, and what is kept stays the layer's own output.
            return output.clone()

        return keep

    def __call__(self, state: TrainingState, loss: Tensor) -> Tensor:
        outputs = [one for calls in state.outputs.values() for one in calls]
        state.outputs.clear()
        if not self._is_on(state):
            return torch.zeros_like(loss)
        weights = [one for layer in state.layers.values() for one in _trained(layer)] if self.weights else []
        if number_of_processes() > 1:
            return self._over_processes(loss, weights, outputs, state.share)
        return gradient_l1(loss, (weights, self.weights), (outputs, self.outputs))

    def _over_processes(self, loss: Tensor, weights: list[Tensor], outputs: list[Tensor], share: float) -> Tensor:
        """That of the mean of all processes' losses: the magnitude of a sum is not the sum of the magnitudes."""
        total = torch.tensor(share, dtype=torch.float32, device=loss.device)
        all_reduce([total])
        among = share / float(total)  # of the samples that pass now, in all processes
        found = _gradients(loss * among, [*weights, *outputs])
        nothing = 0 * loss  # has a graph, so that all processes meet in each tensor's backward pass
        of_weights = [
            all_reduced(nothing.expand_as(one) if gradient is None else gradient)
            for one, gradient in zip(weights, found, strict=False)
        ]
        return self.weights * _l1(of_weights, loss) + self.outputs / among * _l1(found[len(weights) :], loss)

    def _is_on(self, state: TrainingState) -> bool:
        return bool(self.weights or self.outputs) and state.place >= self.from_step


def gradient_l1(loss: Tensor, *parts: tuple[list[Tensor], float]) -> Tensor:
    """``sum_i factor_i sum_t |d loss / dt|_1`` over the tensors of each part, a scalar that can be differentiated.

    Args:
        loss: a scalar with a graph, which is kept.
        parts: tensors that ``loss`` may depend on, and their factor.
    """
    total = torch.zeros_like(loss)
    found = iter(_gradients(loss, [tensor for part, _ in parts for tensor in part]))
    for part, factor in parts:
        total = total + factor * _l1([next(found) for _ in part], loss)
    return total


def _gradients(loss: Tensor, tensors: list[Tensor]) -> list[Tensor | None]:
    if not tensors:
        return []
    # grad, not backward: no .grad then holds on to the graph.
    return list(torch.autograd.grad(loss, tensors, create_graph=True, allow_unused=True))


def _l1(gradients: Sequence[Tensor | None], loss: Tensor) -> Tensor:
    total = torch.zeros_like(loss)
    for one in gradients:
        if one is not None:
            total = total + one.to(torch.promote_types(one.dtype, torch.float32)).abs().sum()
    return total


def _trained(layer: TrainedLayer) -> Iterator[Tensor]:
    """The layer's float weight or, where there is none that trains, its latents."""
    if layer.latent.requires_grad:
        yield layer.latent
    if layer.weight is not None:
        yield from (layer.weight.get_parameter(name) for name in layer.weight.latents)
