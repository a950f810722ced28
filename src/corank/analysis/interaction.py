"""How many directions of its input a layer really uses: the local interaction basis (arXiv 2405.10927, 2405.10928).

Directions are ranked by how much they vary and by how much the directions of the next layer that reads them hang on
them; the last layer's by how much the log-probabilities do (ours: of logits, a sum that is added to all is no answer).
Of convolutions channels are directions and positions are samples: what positions do together is not seen.

Shapes: ``d`` inputs of a layer, ``k`` directions that are kept, ``N`` samples times positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from corank.analysis.answers import all_inputs, answers_of, log_chances
from corank.calibration import Context, generator_of
from corank.matrix import Geometry
from corank.watching import evaluating, input_of, watched, with_input

__all__ = ["Directions", "interaction", "interaction_basis", "principal_directions"]

JACOBIANS = 64  # samples that Jacobians are taken of
PROBES = 32  # random combinations of outputs, where there are more of them than that
KEPT = (0.0625, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0)
FEWEST = 8  # inputs of layers whose directions are dropped
ENERGY = 0.99
RELATIVE = 1e-12  # of the largest eigenvalue: below it a direction is empty


@dataclass(frozen=True)
class Directions:
    """Directions in a layer's inputs, the most important first.

    Attributes:
        into: ``(d, k)`` float64: inputs, less their mean, times this are the coordinates.
        back: ``(k, d)``, its pseudo-inverse.
        importance: ``(k,)``, descending.
    """

    into: Tensor
    back: Tensor
    importance: Tensor

    def projection(self, count: int) -> Tensor:
        """``(d, d)``: what the first ``count`` directions keep of an input."""
        return self.into[:, :count] @ self.back[:count]

    def needed(self, share: float = ENERGY) -> int:
        """The fewest directions that have that share of the importance."""
        reached = self.importance.cumsum(0) / self.importance.sum().clamp(min=1e-300)
        return min(len(reached), int((reached < share).sum()) + 1)


def interaction_basis(gram: Tensor, jacobian: Tensor) -> Directions:
    """The local interaction basis ``C = U D^(-1/2) V L^(1/2)``, with ``G = U D U^T`` and
    ``D^(1/2) U^T M U D^(1/2) = V L V^T``.

    In its coordinates the second moment of the inputs is diagonal, and that of the Jacobian the identity. Its
    importance ``L`` is the same for any invertible map of the inputs that the next layer takes back.

    Args:
        gram: ``(d, d)`` second moment ``G`` of the inputs, less their mean.
        jacobian: ``(d, d)``, ``M = E[J^T J]`` of what reads them.
    """
    size, axes = torch.linalg.eigh(gram.double())
    kept = size > RELATIVE * size[-1].clamp(min=1e-300)
    size, axes = size[kept], axes[:, kept]
    whiten, colour = axes * size.rsqrt(), (axes * size.sqrt()).T
    importance, turned = torch.linalg.eigh(colour @ jacobian.double() @ colour.T)
    importance, turned = importance.flip(0), turned.flip(1)
    kept = importance > RELATIVE * importance[:1].clamp(min=1e-300)
    importance, turned = importance[kept], turned[:, kept]
    return Directions(whiten @ turned * importance.sqrt(), (colour.T @ turned * importance.rsqrt()).T, importance)


def principal_directions(gram: Tensor) -> Directions:
    """The same by how much the inputs vary alone."""
    size, axes = torch.linalg.eigh(gram.double())
    size, axes = size.flip(0).clamp(min=0), axes.flip(1)
    return Directions(axes, axes.T, size)


def interaction(context: Context, labels: Tensor | None, quantized: nn.Module | None, bits: int) -> dict[str, Any]:
    """The local interaction basis of every layer's inputs, and what is right when directions are dropped.

    Args:
        context: the float network and its samples.
        labels: of the samples; None takes the classes that the float network chooses.
        quantized, bits: not used: the basis is the float network's.

    Raises:
        DataError, ModelError: for inputs that are not one tensor, and outputs that are no logits.
    """
    inputs = all_inputs(context, "interaction")
    layers, no_theory = _readable(context, inputs)
    means, grams = _moments(context, layers, inputs)
    bases = _bases(context, layers, inputs[:JACOBIANS], grams)
    known = {"interaction": bases, "principal": {name: principal_directions(grams[name]) for name in bases}}
    with torch.no_grad(), evaluating(context.model):
        right = answers_of(context.model(inputs), labels)
    dropped = {name: layer for name, layer in layers.items() if name in bases and len(grams[name]) >= FEWEST}
    curves: dict[str, list[float]] = {}
    for key, directions in known.items():
        curves[key] = []
        for place, share in enumerate(KEPT):
            context.progress(f"keeping {100 * share:.0f} % of the {key} directions", place, len(KEPT))
            projected = {
                name: (means[name], directions[name].projection(_count(share, grams[name]))) for name in dropped
            }
            curves[key].append(_right(context, dropped, projected, inputs, right))
    rows = [
        {"name": name, "inputs": len(grams[name]), "interaction": bases[name].needed(),
         "principal": known["principal"][name].needed(), "importance": bases[name].importance.tolist()}
        for name in bases
    ]  # fmt: skip
    unread = {name: "nothing that runs after it hangs on its inputs" for name in layers if name not in bases}
    return {
        "layers": rows, "no_theory": {**no_theory, **unread, **context.prepared.skipped}, "kept": list(KEPT), **curves,
        "notes": [f"layers of fewer than {FEWEST} inputs keep all of them"] if len(dropped) < len(bases) else [],
        "energy": ENERGY, "samples": len(inputs), "labelled": labels is not None,
    }  # fmt: skip


def _count(share: float, gram: Tensor) -> int:
    return max(1, round(share * len(gram)))


def _readable(context: Context, inputs: Tensor) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Layers that run once on floating inputs, in their order; and why others are left out."""
    calls: dict[str, int] = {}

    def hook(name: str) -> Callable[..., None]:
        def note(*_: Any) -> None:
            calls[name] = calls.get(name, 0) + 1

        return note

    targets = context.prepared.targets
    with torch.no_grad(), evaluating(context.model), watched(targets, hook):
        context.model(inputs[:1])
    found, left = dict[str, nn.Module](), dict[str, str]()
    for name in targets:
        geometry = context.prepared.geometry(name)
        if geometry.looked_up or geometry.flat or name in context.prepared.weight_only:
            left[name] = "what its weight multiplies is not seen"
        elif calls.get(name, 0) != 1:
            left[name] = f"it runs {calls.get(name, 0)} times a pass; directions of one run are no others'"
        else:
            found[name] = targets[name]
    return {name: found[name] for name in calls if name in found}, left


def _moments(
    context: Context, layers: Mapping[str, nn.Module], inputs: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Mean ``(d,)`` and second moment about it ``(d, d)`` of each layer's inputs, float64."""
    sums, squares, counts = dict[str, Tensor](), dict[str, Tensor](), dict[str, int]()

    def hook(name: str) -> Callable[..., None]:
        def note(_module: nn.Module, args: tuple[Any, ...], named: Mapping[str, Any], _output: Any) -> None:
            rows = _channels_last(context.prepared.geometry(name), input_of(args, named).detach()).double()
            sums[name] = sums.get(name, 0) + rows.sum(0)
            squares[name] = squares.get(name, 0) + rows.T @ rows
            counts[name] = counts.get(name, 0) + len(rows)

        return note

    with torch.no_grad(), evaluating(context.model), watched(layers, hook):
        for part in inputs.split(32):
            context.model(part)
    means = {name: sums[name] / counts[name] for name in sums}
    return means, {name: squares[name] / counts[name] - torch.outer(means[name], means[name]) for name in sums}


def _channels_last(geometry: Geometry, inputs: Tensor) -> Tensor:
    moved = inputs.movedim(-1 - len(geometry.kernel), -1) if geometry.kernel else inputs
    return moved.reshape(-1, moved.shape[-1])


def _bases(
    context: Context, layers: Mapping[str, nn.Module], inputs: Tensor, grams: Mapping[str, Tensor]
) -> dict[str, Directions]:
    """From the output to the input, each layer's basis by that of the layer that reads it."""
    seen: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[..., Any]:
        def note(_module: nn.Module, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
            seen[name] = input_of(args, named).clone()  # that no shortcut reads beside the layer
            return with_input(args, named, seen[name])

        return note

    found: dict[str, Directions] = {}
    with torch.enable_grad(), evaluating(context.model), watched(layers, hook, before=True):
        outputs = log_chances(context.model(inputs.clone().requires_grad_()))
        order, draws = list(layers), generator_of(context.seed, "interaction")
        for place in reversed(range(len(order))):
            name = order[place]
            context.progress(f"directions of {name}", len(order) - 1 - place, len(order))
            geometry = context.prepared.geometry(name)
            read = [_coordinates(context, later, seen[later], found) for later in order[place + 1 :] if later in found]
            moment = _jacobian_moment(geometry, seen[name], [*read, outputs], draws)
            if moment is not None:
                found[name] = interaction_basis(grams[name], moment)
    return {name: found[name] for name in order if name in found}


def _coordinates(context: Context, name: str, inputs: Tensor, found: Mapping[str, Directions]) -> Callable[[], Tensor]:
    """The inputs of a later layer in its own basis, ``(N, positions * k)``, made when they are needed."""

    def made() -> Tensor:
        rows = _channels_last(context.prepared.geometry(name), inputs)
        return (rows @ found[name].into.to(rows)).reshape(len(inputs), -1)

    return made


def _jacobian_moment(
    geometry: Geometry, inputs: Tensor, readers: Sequence[Callable[[], Tensor] | Tensor], draws: torch.Generator
) -> Tensor | None:
    """``E[J^T J]`` ``(d, d)`` of the first reader that hangs on the inputs, summed over its outputs and averaged over
    samples and positions; None where none does.

    Of many outputs random sums are taken: the mean over signs of ``(J^T s)(J^T s)^T`` is ``J^T J``.
    """
    for reader in readers:
        outputs = reader if isinstance(reader, Tensor) else reader()
        if (
            not outputs.requires_grad
            or torch.autograd.grad(outputs.sum(), inputs, retain_graph=True, allow_unused=True)[0] is None
        ):
            continue
        count = outputs.shape[1]
        total: Any = 0.0
        for probe in range(min(count, PROBES)):
            if count <= PROBES:
                weights = torch.zeros_like(outputs)
                weights[:, probe] = 1
            else:
                weights = (torch.randint(2, outputs.shape, generator=draws, dtype=torch.int64) * 2 - 1).to(outputs)
            (gradient,) = torch.autograd.grad(outputs, inputs, weights, retain_graph=True)
            rows = _channels_last(geometry, gradient).double()
            total = total + rows.T @ rows / len(rows)
        return total if count <= PROBES else total / PROBES
    return None


def _right(
    context: Context, layers: Mapping[str, nn.Module], projected: Mapping[str, tuple[Tensor, Tensor]], inputs: Tensor,
    right: Tensor,
) -> float:  # fmt: skip
    """Percent of samples that are right when each layer's inputs lose directions."""

    def hook(name: str) -> Callable[..., Any]:
        geometry, (mean, kept) = context.prepared.geometry(name), projected[name]

        def note(_module: nn.Module, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
            given = input_of(args, named)
            axis = given.dim() - 1 - len(geometry.kernel)
            moved = given.movedim(axis, -1)
            less = (moved - mean.to(given)) @ kept.to(given) + mean.to(given)
            return with_input(args, named, less.movedim(-1, axis))

        return note

    hits = 0
    with torch.no_grad(), evaluating(context.model), ExitStack() as stack:
        stack.enter_context(watched(layers, hook, before=True))
        for part, answers in zip(inputs.split(32), right.split(32), strict=True):
            hits += int((log_chances(context.model(part)).argmax(1) == answers).sum())
    return 100 * hits / len(inputs)
