"""The layers of a float network beside what quantization made of them. ``R`` rows, ``C`` columns, ``G`` groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from corank.calibration import Context, run
from corank.codecs import Codec, Uniform
from corank.layers import CodedLayer
from corank.layers.activation import InputRounder
from corank.losses import distance
from corank.transfer import sent
from corank.watching import evaluating, input_of, watched, with_input

__all__ = ["Coded", "coded_layers", "harm_of", "mean_distance", "outputs_of", "rounded_copy", "rounded_layers"]


@dataclass(frozen=True)
class Coded:
    """What stands in the place of one float layer.

    Attributes:
        codes: the weight ``(G, R, C)`` that its codes alone give.
        composed: the same with what the adapter gives back.
        bits: of a code.
        rank: of the adapter; 0 for none.
        bias: ``(G * R,)``; None where there is none.
        inputs: what rounds its inputs; None where they stay float.
        codec: of the codes.
    """

    codes: Tensor
    composed: Tensor
    bits: int
    codec: Codec
    rank: int = 0
    bias: Tensor | None = None
    inputs: InputRounder | None = None


def coded_layers(context: Context, quantized: nn.Module) -> tuple[dict[str, Coded], dict[str, str]]:
    """Each coded layer of ``quantized`` that stands in the place of one of the float network's; and by name, why others
    are not compared."""
    modules, found, left = dict(quantized.named_modules(remove_duplicate=False)), dict[str, Coded](), dict[str, str]()
    for name in context.prepared.targets:
        layer, shape = modules.get(name), context.prepared.geometry(name).matrix_shape
        if not isinstance(layer, CodedLayer):
            left[name] = "it is in float in the quantized network"
        elif layer.geometry.matrix_shape != shape:
            left[name] = f"its weight is {layer.geometry.matrix_shape} now, and {shape} in the float network"
        else:
            state = layer.code()
            codes, composed = (
                one.reshape(shape).to(context.device) for one in (state.weight.decode(), state.compose())
            )
            bias = None if layer.bias is None else layer.bias.detach().float().to(context.device)
            found[name] = Coded(
                codes, composed, state.codec.bits, state.codec, layer.rank, bias, layer.input_quantizer()
            )
    return found, left


def rounded_layers(context: Context, bits: int) -> dict[str, Coded]:
    """Each layer of the float network rounded to nearest by itself, without data and without an adapter."""
    found, codec = {}, Uniform(bits, range="mse")
    for name in context.prepared.targets:
        weight = context.prepared.weight(name)
        values = codec.fit(weight.flatten(0, 1)).rounded(weight.flatten(0, 1)).reshape(weight.shape)
        found[name] = Coded(values, values, bits, codec, bias=context.prepared.bias(name))
    return found


def outputs_of(context: Context, model: nn.Module) -> list[Any]:
    """What a network gives for the context's samples, batch by batch."""
    with torch.no_grad(), evaluating(model):
        return [run(model, batch, context.device) for batch in context.samples.batches]


def harm_of(context: Context, name: str, coded: Coded, matrix: Tensor, reference: list[Any]) -> float:
    """How far the float network's outputs move when one of its layers alone computes as coded.

    Args:
        context: its model is as before afterwards.
        name: of the layer.
        coded: gives the layer's bias and how it rounds its inputs.
        matrix: the weight ``(G, R, C)``.
        reference: the float outputs.

    Returns:
        The context's loss, mean over samples: nats of KL divergence for a classifier.
    """
    layer = context.prepared.targets[name]
    weight, bias = layer.get_parameter("weight"), layer._parameters.get("bias")
    kept = weight.detach().clone(), None if bias is None else bias.detach().clone()
    with ExitStack() as stack, torch.no_grad():
        if coded.inputs is not None:
            stack.enter_context(watched({name: layer}, _rounding(coded.inputs), before=True))
        try:
            weight.copy_(context.prepared.geometry(name).from_matrix(matrix))
            if bias is not None and coded.bias is not None:
                bias.copy_(coded.bias)
            return mean_distance(context, outputs_of(context, context.model), reference)
        finally:
            weight.copy_(kept[0])
            if bias is not None and kept[1] is not None:
                bias.copy_(kept[1])


def mean_distance(context: Context, outputs: list[Any], reference: list[Any]) -> float:
    """The context's loss between two lists of outputs, mean over samples."""
    total = 0.0
    for output, expected, batch in zip(outputs, reference, context.samples.batches, strict=True):
        placed = {key: sent(one, context.device) for key, one in batch.items()} if isinstance(batch, dict) else batch
        count = len(next(iter(batch.values()))) if isinstance(batch, Mapping) else len(batch)
        total += count * float(distance(context.loss, output, expected, placed))
    return total / len(context.samples)


def _rounding(rounder: InputRounder) -> Callable[[str], Callable[..., Any]]:
    def hook(_name: str) -> Callable[..., Any]:
        return lambda _module, args, named: with_input(args, named, rounder(input_of(args, named)))

    return hook


def rounded_copy(context: Context, bits: int) -> nn.Module:
    """A copy of the float network whose layers all compute with weights rounded to nearest."""
    prepared = context.prepared.copied()
    with torch.no_grad():
        for name, coded in rounded_layers(context, bits).items():
            weight = prepared.targets[name].get_parameter("weight")
            weight.copy_(prepared.geometry(name).from_matrix(coded.composed))
    return prepared.model
