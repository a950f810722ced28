"""Whether batches may walk through a network side by side, seen by trying it on two samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from corank.calibration.paused import PausedPasses

__all__ = ["Interleaving", "interleaving_of"]

_COMPARED = 4096  # numbers of a layer's inputs
_TOLERANCE = 1e-4  # relative; sums in another order differ by less, another batch's state by more


@dataclass(frozen=True)
class Interleaving:
    """What several passes of one network at the same time do to each other.

    Attributes:
        sound: each gives what it gives by itself as long as they take turns, changing over at the layers.
        at_once: they may also run at the same time, since no module sets anything of its own.
    """

    sound: bool
    at_once: bool


def interleaving_of(
    model: nn.Module, targets: Mapping[str, nn.Module], batches: Sequence[Any], device: torch.device
) -> Interleaving:
    """Runs the first and the last sample by themselves, then side by side, and compares what the layers are given.

    A module that keeps something on itself between two layers, such as a scale that the first sets and the second
    reads, finds another batch's there once all batches have passed the first layer.

    Args:
        model: in evaluation mode.
        targets: layers by name, in the order they run.
        batches: of inputs.
        device: where the model is.
    """
    if len(batches) < 2:
        return Interleaving(sound=True, at_once=True)
    pair = [tree_map(lambda leaf: leaf[:1], batches[0]), tree_map(lambda leaf: leaf[-1:], batches[-1])]
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):  # whoever draws in their forward() shall not draw other numbers for it
        first = _walk(model, targets, pair[:1], device)
        before = list(_held(model))
        alone = [first[0], _walk(model, targets, pair[1:], device)[0]]
        at_once = _same_objects(before, list(_held(model)))
        sound = _alike(alone, _walk(model, targets, pair, device))
        if not sound:  # or no two passes are alike, whatever runs beside them: then nothing is to be seen here
            sound = not _alike(first, _walk(model, targets, pair[:1], device))
    return Interleaving(sound, at_once)


def _walk(
    model: nn.Module, targets: Mapping[str, nn.Module], batches: Sequence[Any], device: torch.device
) -> list[list[Tensor | None]]:
    """Of each batch, a part of what each layer is given."""
    found: list[list[Tensor | None]] = [[] for _ in batches]
    with closing(PausedPasses(model, targets, batches, device, ahead=False)) as passes:
        for name in targets:
            for number, seen in enumerate(found):
                inputs = passes.inputs(number, name)
                seen.append(None if inputs is None else _part(inputs))
    return found


def _part(inputs: Tensor) -> Tensor:
    flat = inputs.detach().flatten()
    return flat[:: max(1, len(flat) // _COMPARED)].float().cpu().clone()


def _alike(ones: Sequence[Sequence[Tensor | None]], others: Sequence[Sequence[Tensor | None]]) -> bool:
    return all(
        _close(one, other)
        for left, right in zip(ones, others, strict=True)
        for one, other in zip(left, right, strict=True)
    )


def _close(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    same = one.isfinite() & other.isfinite()
    if one.shape != other.shape or not torch.equal(one.isfinite(), other.isfinite()):
        return False
    return float((one - other)[same].norm()) <= _TOLERANCE * max(float(one[same].norm()), 1e-12)


def _held(model: nn.Module) -> Iterator[tuple[object, object]]:
    """All that the modules hold, to three levels of containers, with what tells that it was written to."""
    for module in model.modules():
        for value in vars(module).values():
            yield from _inside(value, 3)


def _inside(value: object, depth: int) -> Iterator[tuple[object, object]]:
    if isinstance(value, Tensor):
        yield value, None if value.is_inference() else value._version
    elif isinstance(value, (list, tuple, dict)) and depth:
        yield None, len(value)
        for item in value.values() if isinstance(value, dict) else value:
            yield from _inside(item, depth - 1)
    else:
        yield value, None


def _same_objects(before: Sequence[tuple[object, object]], after: Sequence[tuple[object, object]]) -> bool:
    return len(before) == len(after) and all(
        _same(one, other) and mark == other_mark for (one, mark), (other, other_mark) in zip(before, after, strict=True)
    )


def _same(one: object, other: object) -> bool:
    """The very object; of plain values, which are made anew when they are computed, an equal one."""
    plain = (bool, int, float, str)
    return one is other or (isinstance(one, plain) and type(one) is type(other) and one == other)
