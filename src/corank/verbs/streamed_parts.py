"""A network on disk in parts that run by themselves: what is before and behind its decoder layers, and each of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from corank.calibration import Context, Samples, run, token_ids
from corank.calibration.blocks import STATES, BlockPart, Calls, EndsPart, PassedOn
from corank.checkpoint import Checkpoint
from corank.devices import device_of
from corank.errors import ModelError
from corank.models.streamed import StreamedNetwork
from corank.progress import Progress, silent
from corank.quantization.request import QuantizeRequest
from corank.verbs.opening import ContextOptions, open_context

__all__ = ["Batches", "States", "StreamedParts", "Work", "behind"]

States = list[Tensor]
Batches = list[dict[str, Any]]


@dataclass(frozen=True)
class Work:
    """What every decoder layer is coded by.

    Attributes:
        request: its template's exceptions name layers of the whole network.
        tokens: batches of token sequences.
        seed, device, progress: as for :func:`corank.quantize`.
        checkpoint: of the run.
    """

    request: QuantizeRequest
    tokens: Samples
    seed: int
    device: str | torch.device
    checkpoint: Checkpoint
    progress: Progress


class StreamedParts:
    """The parts of a network, and what they are called with on the samples.

    Args:
        network: opened; its decoder layers are put aside, and :class:`~corank.calibration.blocks.PassedOn` stands in
            their places.
        work: to do.
    """

    def __init__(self, network: StreamedNetwork, work: Work) -> None:
        self.network, self.work = network, work
        self._blocks = {name: network.model.get_submodule(name) for name in network.names()}
        self.ids = [found for found in map(token_ids, work.tokens.batches) if found is not None]
        self._calls: dict[str, Calls] = {}
        as_tuple = self._gives_tuple()
        for name, block in self._blocks.items():
            network.put(name, PassedOn(block, as_tuple))

    @property
    def names(self) -> list[str]:
        """Of the decoder layers, in the order they run."""
        return list(self._blocks)

    def entered(self) -> States:
        """What the first decoder layer is given, batch by batch."""
        stands = [self.network.model.get_submodule(name) for name in self._blocks]
        states, calls = States(), [list[dict[str, Any]]() for _ in stands]
        for ids in self.ids:
            self._enter(ids)
            for kept, stand in zip(calls, stands, strict=True):
                assert isinstance(stand, PassedOn)
                kept.append(stand.call)
                found = stand.taken()
                if stand is stands[0]:
                    states.append(found)
        self._calls = {name: Calls(kept) for name, kept in zip(self._blocks, calls, strict=True)}
        return states

    def block(self, name: str) -> BlockPart:
        """A decoder layer with its float weights, read anew."""
        return BlockPart(name, self.network.read(name, self._blocks[name]), self._calls[name].constants)

    def batches(self, name: str, states: States) -> Batches:
        """What that decoder layer is called with where the states before it are those, of the first batches or all."""
        return [self._calls[name].batch(number, one) for number, one in enumerate(states)]

    def ends(self) -> EndsPart:
        """The network without its decoder layers."""
        return EndsPart(self.network.model)

    def ends_batches(self, states: States) -> Batches:
        """What :meth:`ends` is called with where the decoder layers give those states."""
        return [{STATES: one, "input_ids": ids} for one, ids in zip(states, self.ids, strict=False)]

    def take(self, ends: EndsPart) -> None:
        """From now on that is the network without its decoder layers."""
        self.network = replace(self.network, model=ends.whole.cpu())

    def opened(self, part: nn.Module, real: Batches, ideal: Batches | None = None, told: Progress = silent) -> Context:
        """The context of a part, a copy of which it holds.

        Args:
            part: of the network.
            real: what it is called with in the network coded so far.
            ideal: the same in the float network, if that differs.
            told: the progress.
        """
        options = ContextOptions(None, 1, self.work.seed, self.work.device, fold=False, progress=told)
        with torch.enable_grad():
            context = open_context(part, Samples(tuple(real), False), options)
        return context if ideal is None else replace(context, ideal=Samples(tuple(ideal), False))

    def _gives_tuple(self) -> bool:
        """Whether a decoder layer gives a tuple, whose first entry are the states."""
        name, block = next(iter(self._blocks.items()))
        read = self.network.read(name, block)
        self.network.put(name, read)
        watching = read.register_forward_hook(_stop)
        try:
            self._enter(self.ids[0][:1])
        except _StoppedError as stopped:
            return stopped.as_tuple
        finally:
            watching.remove()
            self.network.put(name, block)
        raise ModelError(f"{name!r} does not run in the network's forward pass; load it whole: corank.quantize")

    @torch.no_grad()
    def _enter(self, ids: Tensor) -> None:
        self.network.model.base_model(input_ids=ids, use_cache=False)  # pyright: ignore[reportCallIssue]


def behind(part: nn.Module, batches: Batches) -> States:
    """The states that a part gives, batch by batch."""
    with torch.no_grad():
        return [run(part, batch, device_of(part)).cpu() for batch in batches]


class _StoppedError(Exception):
    """Ends a pass behind the first decoder layer."""

    def __init__(self, as_tuple: bool) -> None:
        super().__init__()
        self.as_tuple = as_tuple


def _stop(_module: nn.Module, _inputs: object, output: object) -> None:
    raise _StoppedError(isinstance(output, tuple))
