"""How much each layer and the whole network can stretch a change, and what quantization did to each layer.

After R. Luo, "Lipschitz constants in deep learning" (arXiv 2602.04078); the paper's text was not at hand: which numbers
are shown, and that of a layer's harm, are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from corank.analysis.bounds import network_bound
from corank.analysis.compared import Coded, coded_layers, harm_of, mean_distance, outputs_of, rounded_layers
from corank.analysis.jacobian import jacobian_norms
from corank.calibration import Context, run
from corank.errors import ModelError
from corank.layers import CodedLayer
from corank.operators import norm_bound, operator_norm
from corank.watching import evaluating, input_of, watched

__all__ = ["lipschitz"]

_SAMPLES = 16  # whose Jacobians are looked at


@dataclass(frozen=True)
class _Sizes:
    """What each layer was called with: the shape of one sample's input, and how often."""

    shapes: Mapping[str, tuple[int, ...]]
    calls: Mapping[str, int]


def lipschitz(context: Context, quantized: nn.Module | None, bits: int) -> dict[str, Any]:
    """Norms of all layers, bounds of the network, and of each layer what quantization leaves and what harm it does.

    Args:
        context: the float network and samples.
        quantized: what quantization made of it; None tries every layer rounded to nearest.
        bits: of that trial.

    Returns:
        A plain record; see docs/analyse.md.
    """
    context.progress("running the float network", 0, 1)
    reference, sizes = outputs_of(context, context.model), _sizes_of(context)
    left: dict[str, str] = {}
    if quantized is None:
        coded, whole = rounded_layers(context, bits), None
    else:
        coded, left = coded_layers(context, quantized)
        whole = mean_distance(context, outputs_of(context, quantized), reference)
    layers, no_theory = [], {}
    for place, name in enumerate(context.prepared.targets):
        context.progress(f"measuring {name}", place, len(context.prepared.targets))
        reason = _no_theory(context, name, sizes)
        if reason:
            no_theory[name] = reason
        norms = _norms(context, name, coded.get(name), sizes) if not reason else {}
        layers.append({"name": name, **norms, **_harm(context, name, coded.get(name), reference)})
    bounds, more, notes = _bounds(context, quantized, layers, sizes)
    return {
        "layers": layers, "no_theory": _joined(no_theory, more, context.prepared.skipped), "not_compared": left,
        "spared": [name for name in context.prepared.targets if name in context.prepared.edges], **bounds,
        "harm_together": whole, "trial_bits": bits if quantized is None else None, "notes": notes,
        "samples": len(context.samples),
    }  # fmt: skip


def _joined(*reasons: Mapping[str, str]) -> dict[str, str]:
    """All reasons of each name, one after the other."""
    names = dict.fromkeys(name for part in reasons for name in part)
    return {name: "; ".join(part[name] for part in reasons if name in part) for name in names}


def _sizes_of(context: Context) -> _Sizes:
    shapes, calls = dict[str, tuple[int, ...]](), dict[str, int]()

    def hook(name: str) -> Any:
        def note(_module: nn.Module, args: tuple[Any, ...], named: Mapping[str, Any], _output: Any) -> None:
            geometry, given = context.prepared.geometry(name), input_of(args, named)
            axes = len(geometry.kernel) + 1
            shapes[name] = tuple(given.shape[-axes:])
            calls[name] = calls.get(name, 0) + 1

        return note

    with torch.no_grad(), evaluating(context.model), watched(context.prepared.targets, hook):
        run(context.model, context.samples.first(1), context.device)
    return _Sizes(shapes, calls)


def _no_theory(context: Context, name: str, sizes: _Sizes) -> str:
    """Why a layer's norm says nothing; empty where it does."""
    geometry = context.prepared.geometry(name)
    if geometry.looked_up:
        return "a table that is looked up: numbers of rows do not move by a little"
    if name in context.prepared.weight_only or geometry.flat:
        return "its module's own code reads the weight; how it is applied is not known"
    if name not in sizes.shapes:
        return "the samples do not reach it"
    return ""


def _norms(context: Context, name: str, coded: Coded | None, sizes: _Sizes) -> dict[str, Any]:
    """The layer's norm, and the norms of what quantization leaves before and after the adapter."""
    geometry, size, matrix = context.prepared.geometry(name), sizes.shapes[name], context.prepared.weight(name)
    weight = geometry.from_matrix(matrix)
    norm = operator_norm(geometry, weight, size)
    found: dict[str, Any] = {
        "input": list(size), "calls": sizes.calls[name], "norm": norm.value,
        "bound": norm_bound(geometry, weight, size),
        "reshaped_norm": float(torch.linalg.matrix_norm(matrix, 2).max()),
    }  # fmt: skip
    if coded is None:
        return found
    for key, changed in (("residual_before", coded.codes), ("residual", coded.composed)):
        same = key == "residual" and not coded.rank
        error = geometry.from_matrix(changed - matrix)
        found[key] = found["residual_before"] if same else operator_norm(geometry, error, size).value
    found["coded_norm"] = operator_norm(geometry, geometry.from_matrix(coded.composed), size, start=norm.right).value
    return found


def _harm(context: Context, name: str, coded: Coded | None, reference: list[Any]) -> dict[str, Any]:
    """What the network's outputs lose by this layer alone."""
    if coded is None:
        return {"bits": None, "rank": None, "harm": None, "harm_before": None}
    harm = harm_of(context, name, coded, coded.composed, reference)
    before = harm_of(context, name, coded, coded.codes, reference) if coded.rank else harm
    return {"bits": coded.bits, "rank": coded.rank, "harm": harm, "harm_before": before}


def _bounds(
    context: Context, quantized: nn.Module | None, layers: list[dict[str, Any]], sizes: _Sizes
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Lower and upper bound of the float network and of the quantized one; why there is none; what there is to say."""
    sample = context.samples.first(_SAMPLES)
    if not isinstance(sample, Tensor) or not sample.is_floating_point():
        why = "its inputs are not one floating tensor: nothing moves by a little, and the network has no bound"
        return {"upper": None, "lower": None, "upper_quantized": None, "lower_quantized": None}, {"(model)": why}, []
    found, reasons, notes = {}, dict[str, str](), list[str]()
    own = {layer["name"]: layer["bound"] for layer in layers if "bound" in layer}
    for key, model in (("", context.model), ("_quantized", quantized)):
        if model is None:
            found |= {f"upper{key}": None, f"lower{key}": None}
            continue
        known = own if model is context.model else _bounds_of_coded(quantized, own, sizes)
        seen = network_bound(model, lambda one: run(one, sample[:1], context.device), sample[:1], known)
        found[f"upper{key}"] = seen.value if math.isfinite(seen.value) else None
        reasons |= {name: f"no bound: {reason}" for name, reason in seen.reasons.items()}
        notes += [one for one in seen.notes if one not in notes]
        found[f"lower{key}"] = _lower(context, model, sample)
        if model is context.model:
            found["before"] = {name: one for name, one in seen.before.items() if math.isfinite(one)}
    return found, reasons, notes


def _bounds_of_coded(quantized: nn.Module | None, own: Mapping[str, float], sizes: _Sizes) -> dict[str, float]:
    modules = dict(quantized.named_modules()) if quantized is not None else {}
    found = {}
    for name in own:
        module = modules.get(name)
        if isinstance(module, CodedLayer):
            found[name] = norm_bound(module.geometry, module.weight, sizes.shapes[name])
        elif module is not None:
            found[name] = own[name]
    return found


def _lower(context: Context, model: nn.Module, sample: Tensor) -> float | None:
    """The largest Jacobian's norm; None where inputs are rounded on the way, so that there is none."""
    if any(isinstance(one, CodedLayer) and one.inputs is not None for one in model.modules()):
        return None
    with evaluating(model):
        try:
            norms = jacobian_norms(lambda inputs: _outputs(model, inputs, context), sample.to(context.device))
        except (RuntimeError, ModelError):
            return None  # an operation on the way has no second derivative
    return float(norms.max())


def _outputs(model: nn.Module, inputs: Tensor, context: Context) -> Any:
    given = model(inputs)
    return [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
