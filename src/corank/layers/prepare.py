"""From any eager model to a copy ready to be coded: norms folded, targets named, the rest explained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from corank.errors import ModelError
from corank.layers.effective import computed_before, make_effective
from corank.layers.folding import agree, fold_all, is_foldable
from corank.layers.hold_weights import hold_weights
from corank.layers.kinds import coded_class
from corank.layers.observe import Observation, names_of, observe
from corank.layers.reach import reach
from corank.layers.targets import edges_of, find_targets, own_weight, told_apart
from corank.layers.transposed import transpose_linears
from corank.matrix import LOOKED_UP, SUPPORTED, Geometry, MatrixModule

__all__ = ["PreparedModel", "prepare"]


@dataclass(frozen=True)
class PreparedModel:
    """A float copy of a model, ready to be coded.

    Attributes:
        model: the copy, in evaluation mode, norms folded.
        targets: name to layer, in the order they run; a shared layer goes by its first name.
        skipped: layers left alone, with the reason.
        folded: names of the norms folded into the layer before them.
        folded_into: by norm, the name of that layer.
        edges: the targets that are the first and the last layer of the network. A language model's are its embedding
            and its head, which are no targets where they share one weight.
        outputs: what the float model gave for the few samples it was watched with.
        unseen: the targets of whose inputs nothing is known: those that no sample reaches, as happens to experts that
            tokens are routed to, and the ``blind`` ones.
        blind: the targets whose inputs cannot be seen: tables that are looked up, and weights that a module's own code
            computes with. They come first.
        first: the targets that are coded before any other: the blind ones, and weights that another module reads too,
            such as a head's that is tied to an embedding.
        repeated: the targets that run several times a pass, such as recurrent weights, once a step.
        weight_only: the targets that do not compute the network's outputs themselves, so that their inputs stay float:
            a module reads their weight.
        unrounded: name to weight and bias of targets that a norm was folded into, in float32, where the model's own
            dtype holds them in fewer digits.
    """

    model: nn.Module
    targets: dict[str, nn.Module] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    folded: tuple[str, ...] = ()
    edges: frozenset[str] = frozenset()
    outputs: Any = None
    unseen: frozenset[str] = frozenset()
    blind: frozenset[str] = frozenset()
    first: frozenset[str] = frozenset()
    repeated: frozenset[str] = frozenset()
    weight_only: frozenset[str] = frozenset()
    unrounded: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    folded_into: Mapping[str, str] = field(default_factory=dict)

    def geometry(self, name: str) -> Geometry:
        """The geometry of a target."""
        return Geometry.of(self.targets[name])

    def weight(self, name: str) -> Tensor:
        """The weight of a target as matrices ``(G, R, C)`` float32, detached."""
        weight = own_weight(self.targets[name]).detach()
        if name in self.unrounded:
            weight = self.unrounded[name][0].to(weight.device)
        return self.geometry(name).to_matrix(weight.float())

    def bias(self, name: str) -> Tensor | None:
        """The bias ``(G * R,)`` float32 of a target, detached; None for a layer without one."""
        found = self.targets[name]._parameters.get("bias")
        if found is not None and name in self.unrounded:
            found = self.unrounded[name][1].to(found.device)
        return None if found is None else found.detach().float()

    def copied(self) -> PreparedModel:
        """The same with a copy of the model."""
        model = copy.deepcopy(self.model)
        layers = dict(model.named_modules(remove_duplicate=False))
        return replace(self, model=model, targets={name: layers[name] for name in self.targets})


def prepare(
    model: nn.Module,
    run: Callable[[nn.Module], Any],
    fold: bool = True,
    further: Iterable[Callable[[nn.Module], Any]] = (),
) -> PreparedModel:
    """Copies the model, folds its norms, and finds the layers that can be coded.

    A norm is folded only where one forward pass shows that it alone reads its layer's output, and only if the
    outputs of the whole model agree afterwards.

    Args:
        model: any eager module; it is not changed.
        run: calls the model on a small batch and returns its output.
        fold: whether to fold norms at all.
        further: calls the model on further samples, one batch each, as long as there are layers that none has reached.

    Raises:
        ModelError: when no layer can be coded, the model is itself one layer, cannot be copied, or has a weight or
            gives an output that is not finite.
    """
    if isinstance(model, (*SUPPORTED, *LOOKED_UP)):
        kind = type(model).__name__
        raise ModelError(
            f"the model is a single {kind}, which has no parent to replace it in; wrap it: Sequential({kind})"
        )
    copied = _copy(model)
    seen = observe(copied, run, SUPPORTED)
    folded: tuple[str, ...] = ()
    unrounded: dict[str, tuple[Tensor, Tensor]] = {}
    into: dict[str, str] = {}
    if fold:
        trial = copy.deepcopy(copied)
        pairs = _twin_norms(copied, trial, seen)
        computed = fold_all(trial, pairs)
        if pairs and agree(seen.outputs, _run(trial, run)):
            names = names_of(trial)
            into = {name: names[id(layer)][0] for layer, _, name in pairs}
            copied, folded, unrounded = trial, tuple(into), computed
            seen = observe(copied, run, SUPPORTED)
    if hold_weights(copied, seen, run):
        seen = replace(observe(copied, run, SUPPORTED), outputs=seen.outputs)
    reach(copied, seen, SUPPORTED, further)
    targets, skipped = find_targets(copied, seen)
    _check(copied, targets, skipped, seen.outputs)
    about = told_apart(targets, copied, seen)
    edges = edges_of(targets, copied, seen)
    return PreparedModel(
        copied, targets, skipped, folded, edges, seen.outputs, unrounded=unrounded, folded_into=into, **about
    )


def _copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, whose weights are parameters of layers of known kinds where that can be."""
    try:
        copied = copy.deepcopy(model, dict[int, Any](computed_before(model))).eval()
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"the model cannot be copied ({str(error).splitlines()[0]}); give one that copy.deepcopy copies: drop "
            "graphs by tensor.detach()"
        ) from error
    make_effective(copied)
    transpose_linears(copied)
    return copied


def _check(model: nn.Module, targets: dict[str, nn.Module], skipped: dict[str, str], outputs: Any) -> None:
    """Raises ModelError where nothing can be coded, or a weight or an output is not finite."""
    if not targets:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:8])
        raise ModelError(
            "the model has no layer that corank codes ("
            + ", ".join(kind.__name__ for kind in (*SUPPORTED, *LOOKED_UP) if kind is not MatrixModule)
            + ")"
            + (f"; passed over: {reasons}" if reasons else "")
        )
    for name, layer in targets.items():
        if not bool(torch.isfinite(own_weight(layer)).all()):
            raise ModelError(f"layer {name!r} has NaN or infinite weights; corank needs a trained, finite model")
    if any(bool(value.isnan().any()) for value in tree_leaves(outputs) if _is_float(value)):
        cause = _cause(model)
        if cause is not None:
            raise ModelError(f"the model's outputs are NaN on the calibration data, as {cause}")


def _twin_norms(model: nn.Module, trial: nn.Module, seen: Observation) -> list[tuple[nn.Module, nn.Module, str]]:
    """(layer, norm, norm's name) of the trial copy, for every norm that may be folded."""
    twins = {id(old): new for old, new in zip(model.modules(), trial.modules(), strict=True)}
    modules = {id(module): module for module in model.modules()}
    names, pairs = names_of(model), []
    for layer_id, norm_id in seen.norms.items():
        norm = modules[norm_id]
        once = seen.calls[layer_id] == 1 and seen.calls[norm_id] == 1
        if (
            is_foldable(norm)
            and once
            and isinstance(norm.running_mean, Tensor)
            and _codable(modules[layer_id], layer_id in seen.alike)
        ):
            pairs.append((twins[layer_id], twins[norm_id], names[norm_id][0]))
    return pairs


def _codable(layer: nn.Module, alike: bool) -> bool:
    try:
        coded_class(layer, alike)
    except ModelError:
        return False
    return True


def _is_float(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _cause(model: nn.Module) -> str | None:
    """What of the model is not finite or a variance below zero, in words."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return f"{name!r} holds values that are not finite"
        if name.endswith("running_var") and bool((tensor < 0).any()):
            return f"{name!r} holds negative variances"
    return None


def _run(model: nn.Module, run: Callable[[nn.Module], Any]) -> Any:
    with torch.no_grad():
        return run(model)
