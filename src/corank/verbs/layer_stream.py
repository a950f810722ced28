"""The decoder layers of a network on disk, coded one after the other while two networks' states walk by them."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from corank.calibration import Context
from corank.calibration.blocks import BlockPart, EndsPart
from corank.codecs import Codec
from corank.errors import ModelError
from corank.layers import PreparedModel
from corank.memory import give_back
from corank.plan import Plan
from corank.progress import Progress
from corank.quantization.encode import drafted, encode
from corank.quantization.float_parts import BY_PLAN
from corank.quantization.request import QuantizeRequest
from corank.quantization.template import FLOAT, LayerOverride, check_fitted
from corank.search import Rates
from corank.storage.model_record import ModelRecord
from corank.verbs.opening import statistics_of
from corank.verbs.stream_rates import StreamRates, keep_states
from corank.verbs.streamed_parts import States, StreamedParts, behind

__all__ = ["LayerStream"]


class LayerStream:
    """A network being coded decoder layer by decoder layer.

    Args:
        parts: of the network, which is changed.
    """

    def __init__(self, parts: StreamedParts) -> None:
        self._parts, self._work = parts, parts.work
        self._records: list[ModelRecord] = []
        self._codecs: Mapping[str, Codec] = {}
        self._left: dict[str, str] = {}

    def coded(self) -> tuple[nn.Module, ModelRecord]:
        """The coded network on the CPU, and what was done to it."""
        parts = self._parts
        ideal = parts.entered()
        about = self._ends_of(ideal)
        first, tied = about.first, about.first - about.blind
        last = ideal
        with TemporaryDirectory() as folder:
            if isinstance(self._work.request.search, Rates):
                rates = StreamRates(parts, Path(folder), self.request_for)
                last = self._walked(ideal if tied else ideal[: rates.few], Path(folder))
                self._codecs = rates.found(last, bool(about.targets))
            elif tied:
                last = self._walked(ideal, None)
        if first:  # a table that the head reads, too, is rounded for what the head is given
            self._code_ends(first, "tables", last if tied else ideal)
        real = parts.entered() if first else ideal
        real = list(real)
        blocks = [self._coded_block(number, name, ideal, real) for number, name in enumerate(parts.names)]
        if behind_them := set(about.targets) - first:
            self._code_ends(behind_them, "head", ideal, real)
        for name, block in zip(parts.names, blocks, strict=True):
            parts.network.put(name, block)
        return parts.network.model, self._record()

    def request_for(self, context: Context, names: Collection[str]) -> QuantizeRequest | None:
        """What was asked for of the layers named of a part; None where that is to leave them in float."""
        targets, request = context.prepared.targets, self._work.request
        layers: dict[str, LayerOverride] = {name: self._codecs[name] for name in targets if name in self._codecs}
        for pattern, choice in request.template.layers.items():
            layers |= dict.fromkeys(fnmatch.filter(targets, pattern), choice)
        layers |= {name: FLOAT for name in targets if name not in names}
        if all(layers.get(name) == FLOAT for name in targets):
            return None
        alike = context.prepared.blind.isdisjoint(names)  # the first and last layer here are not the network's
        return replace(request, template=replace(request.template, layers=layers, all_layers=alike))

    def _ends_of(self, states: States) -> PreparedModel:
        """What there is to code before and behind the decoder layers; in tiny networks nothing."""
        parts = self._parts
        try:
            return parts.opened(parts.ends(), parts.ends_batches(states)).prepared
        except ModelError:
            return PreparedModel(parts.ends())

    def _walked(self, states: States, kept: Path | None) -> States:
        """The states behind all decoder layers of the float network; those before each are kept for the rates."""
        for number, name in enumerate(self._parts.names):
            if kept is not None:
                keep_states(kept, number, states)
            states = behind(self._parts.block(name), self._parts.batches(name, states))
            self._work.progress("reading", number + 1, len(self._parts.names))
        return states

    def _coded_block(self, number: int, name: str, ideal: States, real: States) -> nn.Module:
        """One decoder layer coded; both networks' states are then those behind it."""
        parts = self._parts
        part, given = parts.block(name), parts.batches(name, ideal)
        after = behind(part, given)
        context = parts.opened(part, parts.batches(name, real), given, self._progress_of(number))
        del part  # what is coded is a copy
        coded = self._code(context, set(context.prepared.targets), f"block-{number:04d}")
        real[:] = behind(coded, parts.batches(name, real))
        ideal[:] = after
        give_back()
        assert isinstance(coded, BlockPart)
        return copy.deepcopy(coded.block).cpu()  # of whose coded layers only codes are copied

    def _code_ends(self, names: Collection[str], step: str, ideal: States, real: States | None = None) -> None:
        """Codes layers before or behind the decoder layers; the network has them then."""
        parts = self._parts
        given = parts.ends_batches(ideal)
        context = parts.opened(parts.ends(), given if real is None else parts.ends_batches(real), given)
        coded = self._code(context, names, step)
        assert isinstance(coded, EndsPart)
        parts.take(coded)

    def _code(self, context: Context, names: Collection[str], step: str) -> nn.Module:
        """The part that a context works on with the layers named coded."""
        request = self.request_for(context, names)
        if request is None:
            self._left |= dict.fromkeys(names, BY_PLAN)
            return context.model
        if isinstance(request.search, Rates) and self._codecs:
            request = replace(request, search=replace(request.search, spread=0.0))  # they have theirs
        context = replace(context, checkpoint=self._work.checkpoint.within(step))
        draft = drafted(request, context)
        check_fitted(draft.plan)
        statistics = statistics_of(context, draft.plan, False, 0)
        found = encode(request, draft, statistics, context)
        self._records.append(found.record)
        return found.model

    def _progress_of(self, number: int) -> Progress:
        """Layers coded of all that there will be."""
        blocks = len(self._parts.names)

        def told(what: str, done: int, total: int) -> None:
            if what == "coding":
                self._work.progress(what, number * total + done, blocks * total)

        return told

    def _record(self) -> ModelRecord:
        """What was done to all parts, as one record."""
        layers = {name: layer for record in self._records for name, layer in record.layers.items()}
        plans = {name: plan for record in self._records for name, plan in record.plan.coded().items()}
        skipped = {name: why for record in self._records for name, why in record.skipped.items()} | self._left
        skipped = {name: why for name, why in skipped.items() if name not in layers}
        notes = tuple(dict.fromkeys(text for record in self._records for text in record.notes))
        counts = [record.samples for record in self._records if record.samples is not None]
        return replace(
            self._records[0],
            plan=Plan(plans),
            layers=layers,
            skipped=skipped,
            notes=notes,
            samples=min(counts, default=None),
        )
