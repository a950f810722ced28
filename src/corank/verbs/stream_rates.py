"""Rates of all layers of a network on disk: one walk forth, and one back that brings the gradients.

What :class:`~corank.search.Rates` finds of a network in memory, layer by layer: what each loses at the rate asked for,
weighed by the gradients of the network's outputs, here of a few samples.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor, nn

from corank.calibration import Context, Samples, collect, collect_gradients
from corank.calibration.blocks import STATES
from corank.calibration.collect import propagate_gradients
from corank.codecs import CODECS, Codec
from corank.config import from_json, to_json
from corank.memory import give_back
from corank.quantization.encode import drafted
from corank.quantization.request import QuantizeRequest
from corank.search import Rates
from corank.search.candidates import candidate_problem
from corank.search.rates import WantedRates
from corank.statistics import OutputGradient
from corank.verbs.streamed_parts import Batches, States, StreamedParts

__all__ = ["StreamRates", "keep_states"]

_TOKENS = 4096  # of which the gradients are, and by which losses are estimated
_STEP = "rates"
RequestFor = Callable[[Context, Collection[str]], QuantizeRequest | None]


def keep_states(folder: Path, number: int, states: States) -> None:
    """Keeps the states before a decoder layer."""
    safetensors.torch.save_file({f"{place:06d}": one for place, one in enumerate(states)}, _file(folder, number))


class StreamRates:
    """The rates of all layers.

    Args:
        parts: of the network.
        folder: where :func:`keep_states` kept the states before each decoder layer.
        request_for: what is asked for of layers of a part.
    """

    def __init__(self, parts: StreamedParts, folder: Path, request_for: RequestFor) -> None:
        self._parts, self._folder, self._request_for = parts, folder, request_for
        search = parts.work.request.search
        assert isinstance(search, Rates)
        self._search = search
        self.few = max(1, -(-_TOKENS // parts.ids[0].numel()))  # batches

    def found(self, last: States, ends: bool) -> dict[str, Codec]:
        """The codec of every layer whose rate may differ.

        Args:
            last: the states behind all decoder layers of the float network.
            ends: whether anything before or behind them is coded.
        """
        parts, work = self._parts, self._parts.work
        kept = work.checkpoint.load(_STEP)
        if kept is not None:
            return {name: from_json(one, CODECS, "codec") for name, one in kept[1].items()}
        states = _leaves(last[: self.few])
        wanted = self._of_ends(last[: self.few], Samples(tuple(_one_by_one(parts.ends_batches(states))), False), ends)
        for number, name in reversed(list(enumerate(parts.names))):
            upstream = [_gradient(state) for state in states]
            before = self._kept(number)
            states = _leaves(before)
            context = parts.opened(parts.block(name), parts.batches(name, before))
            targets, samples = context.prepared.targets, Samples(tuple(parts.batches(name, states)), False)
            wanted = self._wanted(
                context, propagate_gradients(context.model, targets, samples, upstream), targets
            ).joined(wanted)
            give_back()
            work.progress("measuring what every layer loses", len(parts.names) - number, len(parts.names))
        codecs = self._search.shared_out(wanted)
        work.checkpoint.save(_STEP, {}, {name: to_json(codec, CODECS) for name, codec in codecs.items()})
        return codecs

    def _of_ends(self, states: States, samples: Samples, coded: bool) -> WantedRates:
        """What the layers before and behind would like to have; gradients come to what the samples hold, in any case.
        Logits are wide, so the samples are of one sequence each."""
        parts, seed = self._parts, self._parts.work.seed
        if not coded:
            collect_gradients(parts.ends(), {}, samples, seed)
            return WantedRates()
        context = parts.opened(parts.ends(), parts.ends_batches(states))
        seen = _part_of(context, set(context.prepared.targets) - context.prepared.blind)
        return self._wanted(context, collect_gradients(context.model, seen, samples, seed), seen)

    def _wanted(
        self, context: Context, gradients: Mapping[str, OutputGradient], targets: Mapping[str, nn.Module]
    ) -> WantedRates:
        """What the layers of a part would like to have."""
        request = self._request_for(context, targets)
        if request is None:
            return WantedRates()
        draft = drafted(request, context)
        moments = collect(context.model, targets, context.samples, context.seed)
        known = {name: {**moments[name], OutputGradient: gradients[name]} for name in targets}
        free = request.template.free(context.prepared) & set(targets)
        found = candidate_problem(draft.plan, free, known, context, lambda _: None)
        assert found.candidates is not None
        return self._search.wanted(found.candidates)

    def _kept(self, number: int) -> States:
        found = safetensors.torch.load_file(_file(self._folder, number))
        return [found[name].clone() for name in sorted(found)[: self.few]]


def _part_of(context: Context, names: Collection[str]) -> dict[str, nn.Module]:
    return {name: layer for name, layer in context.prepared.targets.items() if name in names}


def _one_by_one(batches: Batches) -> Batches:
    """Batches of one sequence each."""
    return [
        {key: one[at : at + 1] for key, one in batch.items()} for batch in batches for at in range(len(batch[STATES]))
    ]


def _leaves(states: States) -> States:
    """Copies that gradients come to."""
    return [state.detach().clone().requires_grad_() for state in states]


def _gradient(state: Tensor) -> Tensor:
    assert state.grad is not None
    return state.grad


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:04d}.safetensors"
