"""How the norms of layers move while they train, and what moves them: after arXiv 2602.04078, a reconstruction.

To first order a step changes the logarithm of a layer's norm by ``<G, dW> / s``, with ``G`` the gradient of the norm
``s``; the sum over layers is how a product bound of the network moves. Steps differ by the noise of their batches,
which spreads that sum; what first order leaves is the curvature of the norm, which pushes it up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from corank.calibration import run
from corank.errors import ConfigError
from corank.notes import note
from corank.operators import norm_gradient, operator_norm
from corank.training.callbacks.base import Callback
from corank.watching import evaluating, input_of, watched

if TYPE_CHECKING:
    from corank.training.state import TrainedLayer, TrainingState

__all__ = ["OperatorNorms"]


@dataclass(frozen=True)
class OperatorNorms(Callback):
    """Writes into the history, at every ``every``-th step, of the weights that the layers compute with (rounded ones,
    where they are low-bit), norms that follow a layer left apart:

    - ``log_norms``: the sum over the layers of the logarithms of their norms, as operators on their own input size;
    - ``norm_gradient``: how much of its change since the last look is the sum of first-order terms;
    - ``norm_noise``: the standard deviation that the differences between those steps give such a sum;
    - ``norm_curvature``: the rest of the change, of second order and above;
    - ``operator_norm:NAME``, ``operator_norm_gradient:NAME``, ``..._noise:NAME`` and ``..._curvature:NAME``: the same
      of each layer, the norm itself instead of its logarithm.

    Each step looks at all weights once more. Two weights and an input of each layer are remembered.

    Args:
        every: steps between two looks, at least 2.
        products: with a layer, at most, that each look takes.
    """

    every: int = 10
    products: int = 40

    def __post_init__(self) -> None:
        if type(self.every) is not int or self.every < 2:
            raise ConfigError(f"every={self.every!r}: steps, at least 2, e.g. OperatorNorms(every=10)")
        if type(self.products) is not int or not 1 <= self.products <= 10_000:
            raise ConfigError(f"products={self.products!r}: 1 to 10000, e.g. OperatorNorms(products=40)")

    @torch.no_grad()
    def step_done(self, state: TrainingState) -> None:
        begun = any(name.startswith("operator-norms-size:") for name in state.kept)
        if not begun:
            _keep_sizes(state)
        due = (state.step + 1) % self.every == 0
        totals = {"log_norms": 0.0, "norm_gradient": 0.0, "norm_noise": 0.0, "norm_curvature": 0.0}
        for name, layer in state.layers.items():
            if f"operator-norms-size:{name}" not in state.kept:
                continue
            weight = layer.geometry.from_matrix(layer.computed().detach())
            if begun:
                self._follow(state, name, weight)
            if begun and due:
                terms = self._look(state, name, layer, weight)
                totals["log_norms"] += math.log(max(terms[0], 1e-300))
                totals["norm_gradient"] += terms[1]
                totals["norm_noise"] = math.hypot(totals["norm_noise"], terms[2])
                totals["norm_curvature"] += terms[3]
            elif not begun:
                self._begin(state, name, layer, weight)
        if begun and due:
            state.measured.update(totals)

    def _follow(self, state: TrainingState, name: str, weight: Tensor) -> None:
        """Adds the first-order term of the step that was done."""
        kept = state.kept
        moved = weight - kept[f"operator-norms-weight:{name}"]
        sums = kept[f"operator-norms-sums:{name}"]
        term = float((kept[f"operator-norms-gradient:{name}"] * moved).sum()) / max(float(sums[0]), 1e-300)
        kept[f"operator-norms-sums:{name}"] = sums + torch.tensor([0, term, term * term, 1], dtype=torch.float64)
        kept[f"operator-norms-weight:{name}"] = weight.clone()

    def _look(
        self, state: TrainingState, name: str, layer: TrainedLayer, weight: Tensor
    ) -> tuple[float, float, float, float]:
        """Norm, gradient term, noise and curvature of one layer since the last look; the next one counts from here."""
        before, total, squares, steps = state.kept[f"operator-norms-sums:{name}"].tolist()
        now = self._begin(state, name, layer, weight)
        noise = math.sqrt(max(0.0, squares - total * total / steps) * steps / (steps - 1)) if steps > 1 else 0.0
        curvature = math.log(max(now, 1e-300) / max(before, 1e-300)) - total
        for kind, value in (("", now), ("_gradient", total), ("_noise", noise), ("_curvature", curvature)):
            state.measured[f"operator_norm{kind}:{name}"] = value
        return now, total, noise, curvature

    def _begin(self, state: TrainingState, name: str, layer: TrainedLayer, weight: Tensor) -> float:
        """Finds the norm and its gradient, from where the last look ended."""
        kept, size = state.kept, tuple(state.kept[f"operator-norms-size:{name}"].tolist())
        norm = operator_norm(layer.geometry, weight, size, self.products, kept.get(f"operator-norms-right:{name}"))
        kept[f"operator-norms-right:{name}"] = norm.right.clone()
        kept[f"operator-norms-gradient:{name}"] = norm_gradient(layer.geometry, weight, norm).clone()
        kept[f"operator-norms-weight:{name}"] = weight.clone()
        kept[f"operator-norms-sums:{name}"] = torch.tensor([norm.value, 0, 0, 0], dtype=torch.float64)
        return norm.value


def _keep_sizes(state: TrainingState) -> None:
    """Remembers the shape of one sample's input of each layer, from this step's batch; says of which there is none."""

    def hook(name: str) -> Callable[..., None]:
        def keep(_module: object, args: tuple[Any, ...], named: Mapping[str, Any], _output: object) -> None:
            given = input_of(args, named)
            size = given.shape[-1 - len(state.layers[name].geometry.kernel) :]
            state.kept[f"operator-norms-size:{name}"] = torch.tensor(size, dtype=torch.int64)

        return keep

    known = {
        name: layer.module
        for name, layer in state.layers.items()
        if not (layer.geometry.looked_up or layer.geometry.flat or layer.parameter != "weight")
    }
    with evaluating(state.model), watched(known, hook):
        run(state.model, state.batch, state.device)
    left = [name for name in state.layers if f"operator-norms-size:{name}" not in state.kept]
    if left:
        note(f"operator norms: nothing is said of {', '.join(left[:6])}: no map of inputs is known of a table, or of a "
             "weight that other code reads")  # fmt: skip
