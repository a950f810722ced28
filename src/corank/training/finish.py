"""The end of a training: what trained as codes, norms folded, compared with training's own forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from corank.calibration import Context, run
from corank.calibration.norms import reestimate_norms
from corank.codecs import ScalarCodebook
from corank.coded_weight import CodedWeight
from corank.coding.install import coded_module
from corank.coding.layer import LayerResult
from corank.errors import TrainingError
from corank.layers import CodedLayerState, HalfModule, give_back_float, module_named, replace_module
from corank.layers.folding import remove_norm
from corank.training.norms import NormAfter, scaled_rows, takes_row_scales
from corank.training.short_numbers import are_short, in_steps, shorten_numbers, with_digits
from corank.training.state import TrainedLayer, TrainingState
from corank.training.weights import TrainableWeight
from corank.training.weights.learned_step import LearnedStepWeight
from corank.watching import input_of

__all__ = ["check_alike", "convert", "settle"]

_PROBED = 32  # samples that both forms are compared on
_PROBED_ROUNDED = 2  # samples that each layer is compared on, where inputs are rounded
_APART, _APART_ROUNDED = 2e-2, 5e-2  # relative difference of outputs: scales, biases and steps become fp16


@torch.no_grad()
def settle(state: TrainingState, norms: Sequence[NormAfter], context: Context) -> None:
    """Puts the network into evaluation mode, batch statistics estimated anew where they adapted, and gives new
    parts of the structure, and numbers of files of a rate, what a file holds; ``norms`` are those to fold."""
    state.model.eval()
    for module in state.model.modules():
        if isinstance(module, HalfModule):
            module.settle()
    if state.recipe.norms == "adapt" and state.recipe.iterations:
        reestimate_norms(state.model, list(context.samples.batches), len(context.samples))
    shorten_numbers(state, norms)


@torch.no_grad()
def convert(state: TrainingState, norms: Sequence[NormAfter], context: Context) -> dict[str, LayerResult]:
    """Coded layers in the place of what trained, in place.

    Args:
        state: settled.
        norms: those to fold; they stay, too, where their layer's codec has no scale for each row.
        context: its samples are what both forms are compared on.

    Returns:
        By name, each layer coded; without an error of its outputs, which only both networks know.

    Raises:
        TrainingError: when the coded network computes something else than the one that trained.
    """
    device, probe = state.device, context.samples.first(_PROBED)
    after, results = {id(norm.layer): norm for norm in norms}, {}
    rounded = any(layer.inputs is not None for layer in state.layers.values())
    shown = _shown(state, after, context) if rounded else {}
    before = run(state.model, probe, device)
    for name, layer in state.layers.items():
        if layer.weight is None:
            continue
        if layer.weight.codec is None:  # what it computes with stays as the layer's float weight
            replace_module(state.model, layer.module, layer.plain(layer.geometry.from_matrix(layer.computed())))
            continue
        coded = _coded(name, layer, layer.weight)
        norm = after.get(id(layer.module))
        results[name] = _result(layer, coded, norm, are_short(state))
        if norm is not None and takes_row_scales(layer.weight.codec):
            remove_norm(state.model, norm.norm)
        replace_module(state.model, layer.module, coded_module(layer.plain(layer.latent), results[name]))
    if not rounded:
        check_alike("network", before, run(state.model, probe, device))
    for name, (fed, expected) in shown.items():
        check_alike(f"layer {name!r}", expected, module_named(state.model, name)(fed), _APART_ROUNDED)
    if not results:
        give_back_float(state.model)
    state.model.requires_grad_(False)
    return results


def _coded(name: str, layer: TrainedLayer, weight: TrainableWeight) -> CodedWeight:
    coded, computed = weight.coded(layer.matrix), weight(layer.matrix)
    if not torch.equal(coded.decode(), computed):
        off = float((coded.decode() - computed).abs().amax())
        raise TrainingError(
            f"layer {name!r} trained with another weight than the codes that {type(weight).__name__} gives, by up to "
            f"{off:.3g}"
        )
    return coded


def _result(layer: TrainedLayer, coded: CodedWeight, norm: NormAfter | None, short: bool) -> LayerResult:
    assert layer.weight is not None and layer.weight.codec is not None
    codec, bias = layer.weight.codec, layer.module._parameters.get("bias")
    found = None if bias is None else bias.detach().float()
    if norm is not None and takes_row_scales(codec):
        found = norm.offset
        coded = CodedWeight(coded.codes, scaled_rows(coded.codebook, norm.gain))
    if short and isinstance(layer.weight, LearnedStepWeight):  # they are, but for the last digits of what was folded
        book = coded.codebook
        assert isinstance(book, ScalarCodebook)
        coded = CodedWeight(coded.codes, replace(book, scale=with_digits(book.scale)))
        found = None if found is None else in_steps(found)
    inputs = None if layer.inputs is None else layer.inputs.quantizer()
    if inputs is not None:
        inputs = replace(inputs, step=inputs.step.to(torch.float16).float())
    code = CodedLayerState(codec.with_measured_size(coded.codebook), coded, None, 8, inputs)
    kept = None if found is None else found.to(torch.float16).float()
    return LayerResult(code, kept, float("nan"), coded.decode().new_zeros(0))


def _shown(state: TrainingState, after: Mapping[int, NormAfter], context: Context) -> dict[str, tuple[Tensor, Tensor]]:
    """What each layer is fed before its inputs are rounded, and what it or the norm to be folded into it gives.

    Rounded inputs are looked at layer by layer: what fp16 takes of one layer moves some inputs of the next across a
    step, and through many layers of few bits any difference grows to one of the outputs' own size, though the network
    is as good.
    """
    fed, given, handles = dict[str, Tensor](), dict[str, Tensor](), []
    for name, layer in state.layers.items():
        if layer.weight is None or layer.weight.codec is None:
            continue
        norm = after.get(id(layer.module))
        last = norm.norm if norm is not None and takes_row_scales(layer.weight.codec) else layer.module

        def enter(_module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], name: str = name) -> None:
            fed[name] = input_of(args, named).clone()  # what comes later may change it in place

        def leave(_module: nn.Module, _args: object, output: Tensor, name: str = name) -> None:
            given[name] = output.clone()

        # First, as what rounds the inputs is a hook, too.
        handles.append(layer.module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True))
        handles.append(last.register_forward_hook(leave))
    try:
        run(state.model, context.samples.first(_PROBED_ROUNDED), state.device)
    finally:
        for handle in handles:
            handle.remove()
    return {name: (fed[name], given[name]) for name in fed if name in given}


def check_alike(what: str, expected: Any, given: Any, allowed: float = _APART) -> None:
    """Raises TrainingError where a coded network (or layer) gives other outputs than the one that trained, by more than
    that share of their norm."""
    for one, other in zip(tree_leaves(expected), tree_leaves(given), strict=True):
        if isinstance(one, Tensor) and one.is_floating_point():
            apart = float((one - other).norm() / one.norm().clamp(min=1e-12))
            if not apart <= allowed:
                raise TrainingError(
                    f"the coded {what}'s outputs differ from those of the {what} that trained by {apart:.3g} of "
                    f"their norm; {allowed:g} is what rounding scales and biases to fp16 may take"
                )
