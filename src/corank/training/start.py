"""A network made ready to train: layers parametrized from where ``quantize`` ends, norms apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from corank.codecs import RowLevels
from corank.coded_weight import CodedWeight
from corank.layers import CodedLayerState, HalfParameters, InputRounder
from corank.matrix import Geometry
from corank.training.inputs import InputStart, InputTraining
from corank.training.norms import NormAfter, scaled_rows
from corank.training.recipe import Recipe
from corank.training.state import TrainedLayer, TrainingState, parametrized
from corank.training.weights import WeightStart, WeightTraining

__all__ = ["LayerStart", "anew", "begin"]

_SMALLEST_GAIN = 1e-12
_DRAWN = (
    *(nn.Linear, nn.Embedding, nn.EmbeddingBag, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase),
    *(nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, HalfParameters),
)


@dataclass(frozen=True)
class LayerStart:
    """How one layer trains, and from where.

    Attributes:
        weight: how its weight trains; None as a float weight.
        inputs: how its inputs train; None leaves them in float.
        code: as ``quantize`` codes the layer; None for a start from the float weight.
        moved: what ``quantize`` added to the layer's bias, ``(R,)``; None for nothing.
        quantizer: what rounds the inputs at the start.
        mean_size: mean magnitude of the inputs.
        folded: whether the layer was coded with the norm after it folded.
    """

    weight: WeightTraining | None
    inputs: InputTraining | None = None
    code: CodedLayerState | None = None
    moved: Tensor | None = None
    quantizer: InputRounder | None = None
    mean_size: float = 1.0
    folded: bool = True


def begin(
    model: nn.Module, starts: Mapping[str, LayerStart], norms: Sequence[NormAfter], recipe: Recipe, seed: int
) -> TrainingState:
    """Parametrizes the named layers of ``model``, in place, and gives the state of a training at its start.

    Args:
        model: float32, in evaluation mode, its norms apart.
        starts: by layer name.
        norms: those that can be folded, their gains positive (:meth:`~corank.training.norms.NormAfter.turn`).
        recipe: to carry out.
        seed: of all draws.
    """
    modules, after = dict(model.named_modules(remove_duplicate=False)), {id(norm.layer): norm for norm in norms}
    layers: dict[str, TrainedLayer] = {}
    for number, (name, start) in enumerate(starts.items()):
        module = modules[name]
        layer = TrainedLayer(module, Geometry.of(module))
        matrix = layer.geometry.to_matrix(module.get_parameter("weight").detach()).flatten(0, 1).clone()
        if start.weight is not None:
            codes, fresh = _unfolded(start, after.get(id(module)), matrix), recipe.start == "scratch"
            given = WeightStart(matrix, codes, (seed << 10) + number, fresh, layer.geometry)
            layer.weight, latent = start.weight.start(given)
            layer.weight.to(matrix.device)
            parametrized(layer)
            layer.rewrite(latent)
        if start.moved is not None:
            _move_bias(module, after.get(id(module)), start.moved)
        if start.inputs is not None and start.quantizer is not None:
            given_inputs = InputStart(start.quantizer, start.mean_size, layer.geometry)
            layer.inputs = start.inputs.start(given_inputs).to(matrix.device)
            module.register_forward_pre_hook(_feeding(layer.inputs), with_kwargs=True)
        layers[name] = layer
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    for layer in layers.values():
        layer.latent.requires_grad_(layer.weight is None or layer.weight.trains_weight)
    behind = {name: after[id(modules[name])].norm for name in starts if id(modules[name]) in after}
    return TrainingState(recipe, model, None, layers, seed, norms=behind)


def anew(model: nn.Module, seed: int) -> None:
    """Fresh numbers for all layers that torch can draw them for, in place: a start from scratch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in model.modules():
            if isinstance(module, _DRAWN):
                module.reset_parameters()


def _unfolded(start: LayerStart, norm: NormAfter | None, matrix: Tensor) -> CodedWeight | None:
    """The layer's codes with the norm's gain taken out of their scales."""
    if start.code is None:
        return None
    coded, codec = start.code.weight, start.code.codec
    if norm is None or not start.folded:
        return CodedWeight(coded.codes.to(matrix.device), coded.codebook)
    gain = norm.gain.to(matrix.device)
    book = scaled_rows(coded.codebook, gain.clamp(min=_SMALLEST_GAIN).reciprocal())
    dead = gain <= _SMALLEST_GAIN  # a row that the norm multiplies by zero: its scale says nothing of the weight
    if bool(dead.any()):
        fitted = codec.fit(matrix)
        codes = torch.where(dead[:, None], fitted.nearest(matrix), coded.codes.to(matrix.device))
        return CodedWeight(codes, _rows_of(fitted, book, dead))
    return CodedWeight(coded.codes.to(matrix.device), book)


def _rows_of(one: Any, other: Any, mask: Tensor) -> Any:
    """The scales and offsets, or levels, of ``one`` where ``mask`` is true, of ``other`` elsewhere."""
    if isinstance(other, RowLevels):
        return replace(other, levels=torch.where(mask[:, None], one.levels, other.levels))
    scale = torch.where(mask[:, None], one.scale, other.scale)
    return replace(other, scale=scale, offset=torch.where(mask[:, None], one.offset, other.offset))


@torch.no_grad()
def _move_bias(module: nn.Module, norm: NormAfter | None, moved: Tensor) -> None:
    own = module._parameters.get("bias")
    if norm is not None:
        norm.take_bias(moved)
    elif own is not None:
        own.add_(moved.to(own))


def _feeding(inputs: nn.Module):
    def feed(
        _module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (inputs(args[0]), *args[1:]), named
        first = next(iter(named))
        return args, {**named, first: inputs(named[first])}

    return feed
