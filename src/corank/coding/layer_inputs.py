"""Steps of the layers' inputs: from what a network, float or coded so far, feeds each layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from corank.calibration import Context, LayerwisePasses, run
from corank.errors import ModelError
from corank.layers import InputRounder, RoundedOperand, fit_inputs
from corank.padding import masks_of, real_rows
from corank.plan import LayerPlan
from corank.processes import shard
from corank.statistics import InputValues
from corank.watching import input_of, watched

__all__ = ["fit_operands", "fitted_before", "fitted_here"]


def fitted_before(context: Context, plans: Mapping[str, LayerPlan]) -> dict[str, InputRounder]:
    """The quantizers of all layers named in ``plans``, from one pass through the float model."""
    if not plans:
        return {}
    samples, seed, device = context.samples, context.seed, context.device
    found = {name: InputValues(len(samples.batches), device) for name in plans}
    batch_number, masks = 0, tuple[Tensor, ...]()

    def hook(name: str):
        def feed(_module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            inputs = _real(context.prepared.targets[name], input_of(args, named), masks)
            found[name].update(batch_number, inputs, _draws(seed, batch_number))

        return feed

    with watched({name: context.prepared.targets[name] for name in plans}, hook, before=True), torch.no_grad():
        for number, batch in shard(samples.batches):
            batch_number, masks = number, masks_of(batch)
            run(context.model, batch, device)
    quantizers = {name: _fitted(name, values, plans[name]) for name, values in found.items()}
    for name, quantizer in quantizers.items():
        if quantizer is None:
            raise ModelError(
                f"no sample reaches layer {name!r}, so nothing tells the range of its inputs; leave them in float: "
                f'LayerPlan(..., inputs=None), or the layer: layers={{{name!r}: "float"}}'
            )
    return {name: quantizer for name, quantizer in quantizers.items() if quantizer is not None}


def fitted_here(stream: LayerwisePasses, name: str, plan: LayerPlan, context: Context) -> InputRounder | None:
    """The quantizer of the layer that all batches of ``stream`` stand before; None where none comes by it."""
    values = InputValues(len(context.samples.batches), context.device)
    layer, mine = context.prepared.targets[name], shard(context.samples.batches)
    for place, (number, batch) in enumerate(mine):
        for ahead in (place, place + 1):  # the next batch runs on meanwhile
            if ahead < len(mine):
                stream.begin(ahead, name)
        inputs = stream.inputs(place, name)
        if inputs is not None:
            values.update(number, _real(layer, inputs, masks_of(batch)), _draws(context.seed, number))
    return _fitted(name, values, plan)


def fit_operands(context: Context, model: nn.Module) -> None:
    """Fits what rounds operands in ``model``, in place, to what the float model multiplies, from one pass through it.

    Args:
        context: its model has the same operands, which are not active.
        model: whose operands are then active.
    """
    watchable, samples = _operands(context.prepared.model), context.samples
    if not watchable:
        return
    found = {name: InputValues(len(samples.batches), context.device) for name in watchable}
    batch_number = 0

    def hook(name: str):
        def feed(_module: nn.Module, args: tuple[Tensor, ...], _named: object) -> None:
            found[name].update(batch_number, args[0], _draws(context.seed, batch_number))

        return feed

    with watched(watchable, hook, before=True), torch.no_grad():
        for number, batch in shard(samples.batches):
            batch_number = number
            run(context.prepared.model, batch, context.device)
    for name, operand in _operands(model).items():
        found[name].reduce()
        operand.fit(found[name].values)
        operand.active = True


def _operands(model: nn.Module) -> dict[str, RoundedOperand]:
    return {name: one for name, one in model.named_modules() if isinstance(one, RoundedOperand)}


def _real(layer: nn.Module, inputs: Tensor, masks: Sequence[Tensor]) -> Tensor:
    """The inputs without those of padding, where they are vectors of tokens."""
    return real_rows(masks, inputs) if isinstance(layer, nn.Linear) else inputs


def _fitted(name: str, values: InputValues, plan: LayerPlan) -> InputRounder | None:
    values.reduce()
    if not len(values.values):
        return None
    low, high = values.ends
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ModelError(f"the inputs of layer {name!r} are NaN or infinite on the calibration data")
    assert plan.inputs is not None
    return fit_inputs(values.values, low, high, plan.inputs, plan.input_range)


def _draws(seed: int, batch: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed << 20) + batch)
