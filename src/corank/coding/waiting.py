"""How many samples may wait before a layer at once: as many as the machine has memory for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from corank.calibration import Context, Samples, run
from corank.memory import free_bytes
from corank.notes import note
from corank.processes import from_main, number_of_processes, processes_here
from corank.watching import input_of, watched

__all__ = ["waiting_samples"]

_USUAL_BYTES = 2 << 30  # also where the system does not tell what is free
_COPIES = 6  # of a layer's inputs that a waiting sample holds: about three tensors in each network, a few times as many
# where layers are joined across the whole of it; so a quarter of what is free is spent by this reckoning
_EIGHTHS = 8
_STEP = "waiting"


def waiting_samples(model: nn.Module, layers: Mapping[str, nn.Module], context: Context) -> Samples:
    """The samples that layers are coded from one after the other: all, or as many from the front as memory holds.

    All of them wait before the same layer in the float network and in the one coded so far, and a layer that saw other
    samples than the one before it would be corrected for errors that are not there. So what does not fit is left out,
    with a note, in whole eighths, which a little more or less of free memory seldom changes.

    Args:
        model: float.
        layers: that will be waited before, by name.
        context: holds all samples; its checkpoint keeps how many it was, so that a run that goes on elsewhere takes as
            many.
    """
    samples = context.samples
    kept = context.checkpoint.load(_STEP)
    count = int(kept[1]["samples"]) if kept is not None else from_main(lambda: _affordable(model, layers, samples))
    if kept is None:
        context.checkpoint.save(_STEP, {}, {"samples": count})
    if count >= len(samples):
        return samples
    taken = samples.take(count)
    note(
        f"layers were coded one after the other from {len(taken)} of the {len(samples)} samples: more would not wait "
        "in memory together; other machines may take more or fewer, and samples= sets a number that all can take",
        samples=len(taken),
    )
    return taken


def _affordable(model: nn.Module, layers: Mapping[str, nn.Module], samples: Samples) -> int:
    """A number of samples; all of them, or some eighths, or half of an eighth and so on."""
    device = next(model.parameters()).device
    free = free_bytes(device)
    if free is None:
        room = _USUAL_BYTES
    else:
        free //= processes_here() if device.type == "cpu" else 1
        room = max(free // 4, min(_USUAL_BYTES, free // 2))
    fitting = number_of_processes() * max(1, room // (_COPIES * _widest(model, layers, samples)))
    return next((count for count in _portions(len(samples)) if count <= fitting), 1)


def _portions(count: int) -> Iterator[int]:
    yield from (max(1, count * eighths // _EIGHTHS) for eighths in range(_EIGHTHS, 0, -1))
    portion = count // _EIGHTHS
    while portion > 1:
        portion //= 2
        yield portion


def _widest(model: nn.Module, layers: Mapping[str, nn.Module], samples: Samples) -> int:
    """Bytes of the largest inputs of one sample."""
    widest = 1

    def measure(_module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        nonlocal widest
        inputs: Tensor = input_of(args, named)
        widest = max(widest, inputs.numel() * inputs.element_size())

    with watched(layers, lambda _: measure, before=True), torch.no_grad():
        run(model, samples.first(1), next(model.parameters()).device)
    return widest
