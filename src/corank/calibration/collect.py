"""Streams samples through the float model and feeds only the statistics asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from corank.calibration.layer_rows import finite_gram, layer_rows, position_limit
from corank.calibration.same_inputs import Readers
from corank.calibration.samples import Samples, run
from corank.devices import device_of
from corank.losses import sensitivity_target
from corank.matrix import Geometry
from corank.padding import masks_of, output_mask, real_positions
from corank.processes import shard
from corank.progress import Progress, silent
from corank.statistics import Gram, OutputGradient, Statistic
from corank.transfer import sent
from corank.watching import input_of, watched

__all__ = ["collect", "collect_gradients", "propagate_gradients"]


def collect(
    model: nn.Module,
    targets: Mapping[str, nn.Module],
    samples: Samples,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, dict[type[Statistic], Statistic]]:
    """The :class:`~corank.statistics.Gram` of every target's inputs, in one pass.

    Padding, by the batches' attention masks, counts nowhere. A layer that no sample reaches has moments of nothing
    known; see :meth:`~corank.statistics.Gram.unknown`.

    Layers that read the same tensors share one.

    Never unfolds more than a seeded subsample of positions: about ``32 C + 32768`` rows a layer in all, and at most
    64 MB at once.

    Args:
        model: the float model, in evaluation mode.
        targets: name to layer.
        samples: calibration samples.
        seed: draws the positions.
        progress: called with (what, done, total).

    Returns:
        Layer name to its statistics.

    Raises:
        ModelError: when a layer's inputs are not finite.
    """
    device = device_of(model)
    generator = torch.Generator()
    grams = {name: _empty_gram(layer, device) for name, layer in targets.items()}
    total, readers = len(samples), Readers(targets)
    masks, number = tuple[Tensor, ...](), 0
    passes: dict[str, set[int]] = {name: set() for name in targets}  # batches that came by the layer

    def hook(name: str) -> Callable[..., None]:
        geometry = Geometry.of(targets[name])

        def feed(_module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor], _output: Tensor) -> None:
            inputs = input_of(args, named)
            if inputs.numel():
                limit = position_limit(geometry, total, inputs.shape[0])
                rows = layer_rows(geometry, inputs, limit, generator, masks)  # also where it draws for nobody
                passes[name].add(number)
                if readers.first(name, inputs) == name:
                    grams[name].update(*rows)

        return feed

    with watched(_fed(targets), hook), torch.no_grad():
        for number, batch in shard(samples.batches):
            generator.manual_seed((seed << 20) + number)  # the same positions whoever draws them
            masks = masks_of(batch)
            run(model, batch, device)
            progress("calibrating", number + 1, len(samples.batches))
    shared = readers.shared()
    for name in (one for one in grams if one not in shared):  # in one order in all processes
        grams[name].of_passes(len(passes[name]))
        grams[name].reduce()
        grams[name] = finite_gram(grams[name], name)
    found: dict[str, dict[type[Statistic], Statistic]] = {name: {Gram: grams[shared.get(name, name)]} for name in grams}
    for name in readers.parted():  # which no network does but one that sends its inputs elsewhere by what they are
        found |= collect(model, {name: targets[name]}, samples, seed)
    return found


def collect_gradients(
    model: nn.Module,
    targets: Mapping[str, nn.Module],
    samples: Samples,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, OutputGradient]:
    """The :class:`~corank.statistics.OutputGradient` of every target: the empirical Fisher information per position.

    Labels are drawn from the model's own softmax (see :func:`corank.losses.sensitivity_target`); one forward and one
    backward pass, weights are not differentiated.
    """
    generator = torch.Generator()

    def target(output: Any, number: int, batch: Any) -> Tensor:
        generator.manual_seed((seed << 20) + number)
        progress("sensitivity", number + 1, len(samples.batches))
        return sensitivity_target(output, generator, samples.are_tokens, output_mask(batch))

    return _gradients(model, targets, samples, target)


def propagate_gradients(
    model: nn.Module, targets: Mapping[str, nn.Module], samples: Samples, upstream: Sequence[Tensor]
) -> dict[str, OutputGradient]:
    """The same of a part of a network, from the gradients at its outputs.

    Args:
        model: gives one tensor; gradients also come to those of its inputs that ask for them.
        targets: name to layer.
        samples: calibration samples.
        upstream: gradients at the output, batch by batch.
    """
    return _gradients(
        model, targets, samples, lambda output, number, _: (output * sent(upstream[number], output.device)).sum()
    )


def _gradients(
    model: nn.Module, targets: Mapping[str, nn.Module], samples: Samples, target: Callable[[Any, int, Any], Tensor]
) -> dict[str, OutputGradient]:
    """Gradients at every target's outputs of ``target(output, number, batch)``, of all batches."""
    device = device_of(model)
    found: dict[str, OutputGradient] = {}
    masks: tuple[Tensor, ...] = ()

    def hook(name: str) -> Callable[..., Tensor]:
        geometry = Geometry.of(targets[name])
        groups, width, _ = geometry.matrix_shape
        statistic = found[name] = OutputGradient(groups, width, device)  # stays empty where no output depends on it

        def feed(_module: nn.Module, _inputs: object, _named: object, output: Tensor) -> Tensor:
            if not output.requires_grad:
                output = output.detach().requires_grad_(True).clone()

            def take(gradient: Tensor) -> None:
                rows = geometry.group_outputs(gradient.detach())
                positions = rows.shape[1] // gradient.shape[0]
                real = None if geometry.kernel else real_positions(masks, gradient.shape)
                rows = rows if real is None else rows[:, real.flatten().to(rows.device)]
                step = max(1, rows.shape[1] * rows.shape[2] * rows.shape[0] // (1 << 23))
                statistic.update(rows[:, ::step], positions)

            if output.numel():
                output.register_hook(take)
            return output

        return feed

    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)
    try:
        with watched(_fed(targets), hook):
            for number, batch in shard(samples.batches):
                masks = masks_of(batch)
                with torch.enable_grad():
                    target(run(model, batch, device), number, batch).backward()
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
    for statistic in found.values():
        statistic.reduce()
    return found


def _fed(targets: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Those that are called with what their weight multiplies."""
    return {name: layer for name, layer in targets.items() if not Geometry.of(layer).looked_up}


def _empty_gram(layer: nn.Module, device: torch.device) -> Gram:
    groups, _, columns = Geometry.of(layer).matrix_shape
    return Gram(groups, columns, device)
