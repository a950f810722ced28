"""What a pruning works with: the network, what of it goes together, what that costs, and how it is weighed."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from corank.calibration import Samples, run
from corank.calibration.norms import reestimate_norms
from corank.devices import device_of
from corank.errors import BudgetError, ConfigError, ModelError
from corank.layers.meta import check_values
from corank.losses import sensitivity_target
from corank.padding import output_mask
from corank.pruning.choice import chosen, largest_share
from corank.pruning.compensation import compensate
from corank.pruning.cost import Costs, multiply_adds, positions_of
from corank.pruning.coupling import Coupling
from corank.pruning.criteria import bounds_of, first_order, magnitudes, perspective_scores, saved_by_unit
from corank.pruning.drawing import DrawToZero
from corank.pruning.graph import Couplings, find_couplings
from corank.pruning.record import PruneRecord
from corank.pruning.removal import Removed, remove
from corank.pruning.request import Method, Share
from corank.pruning.trial import tried

__all__ = ["PruningRun"]

_PROBED = 2  # samples that the network is watched with
_WEIGHED, _TOGETHER = 256, 8  # samples whose gradients weigh the units, and how many pass at once
_FITTED = 512  # samples that what is left is fitted with
_NAMED = 3


@dataclass(frozen=True)
class PruningRun:
    """A pruning that is set up.

    Attributes:
        model: as it was given, in evaluation mode, float32.
        couplings: what can go, and what stays.
        positions: by layer, how often a sample makes each of its weights multiply.
        samples: of the calibration.
        share: of the cost that is to go.
        method: that weighs the units.
        seed: of all draws.
    """

    model: nn.Module
    couplings: Couplings
    positions: Mapping[str, float]
    samples: Samples
    share: Share
    method: Method
    seed: int = 0

    @classmethod
    def of(
        cls, model: nn.Module, samples: Samples, keep: Sequence[str], asked: tuple[Share, Method, int]
    ) -> PruningRun:
        """Sets a pruning up; the model is not changed.

        Raises:
            ModelError: for a network that cannot be followed, or of which nothing can go. BudgetError: for a share that
                would leave a layer without channels. ConfigError: for a name of ``keep`` that no layer has.
        """
        check_values(model)
        own = copy.deepcopy(model).float().eval()
        batch, device = samples.first(_PROBED), device_of(own)
        found = find_couplings(own, lambda one: run(one, batch, device))
        found = tried(own, _kept(found, keep, own), batch, lambda one, given: run(one, given, device))
        if not found.found:
            told = "; ".join(f"{name}: {why}" for name, why in list(found.left.items())[:_NAMED])
            raise ModelError(f"no channels of this {type(model).__name__} can go ({told})")
        count = min(_PROBED, len(samples))
        positions = positions_of(own, lambda one: run(one, batch, device), count)
        made = cls(own, found, positions, samples, *asked)
        most = largest_share(found.found, made.costs, made.share.round_to)
        if not most:
            raise BudgetError(
                f"round_to={made.share.round_to}: no layer has so many channels to spare, e.g. round_to=1"
            )
        if made.share.value > most:
            works = int(most * 1000) / 1000
            suffix = "p" if made.share.of == "parameters" else ""
            left = "channels" if made.share.round_to == 1 else f"{made.share.round_to} channels (round_to)"
            raise BudgetError(
                f"remove={made.share}: some layer would be left without {left}; the largest share of the "
                f'{made.share.of} that works is {works:g}: remove="{works:g}{suffix}"'
            )
        return made

    @property
    def costs(self) -> Costs:
        """What the network costs without given units."""
        return Costs.of(self.model, self.couplings.found, None if self.share.of == "parameters" else self.positions)

    def drawing(self) -> DrawToZero | None:
        """What draws units to zero while the network trains; None for a method that does not."""
        how, found = self.method, self.couplings.found
        if how.draws is None:
            return None
        bounds = tuple(bounds_of(self.model, found, how.bound)) if how.draws == "perspective" else None
        return DrawToZero(found, bounds, how.weight, how.alpha)

    def chosen(self, drawn: nn.Module) -> dict[int, Tensor]:
        """The units that go, as the network that was drawn on weighs them."""
        return chosen(self.couplings.found, self._scores(drawn), self.costs, self.share.value, self.share.round_to)

    def removed(self, drawn: nn.Module, removed: Removed) -> nn.Module:
        """A copy of the network without those units, what reads them fitted to do without."""
        narrow, few = copy.deepcopy(drawn), self.samples.take(_FITTED)
        if self.method.compensate:
            compensate(narrow, self.couplings.found, removed, few, self.seed)
        remove(narrow, self.couplings.found, removed)
        if self.method.compensate:
            reestimate_norms(narrow, few.batches, len(few))
        return narrow

    def recorded(self, narrow: nn.Module, removed: Removed) -> PruneRecord:
        """What was done, as far as no step trained."""
        before, after = (_parameters(one) for one in (self.model, narrow))
        adds = (multiply_adds(self.model, self.positions), multiply_adds(narrow, self.positions))
        channels: dict[str, tuple[int, int]] = {}
        for name, module in narrow.named_modules():
            old = _width(self.model.get_submodule(name))
            if old is not None and old != (new := _width(module)) and new is not None:
                channels[name] = (old, new)
        for place, units in removed.items():
            coupling: Coupling = self.couplings.found[place]
            if coupling.heads is not None:
                channels[coupling.heads] = (coupling.units, coupling.units - int(units.sum()))
        return PruneRecord(
            self.method.name,
            str(self.share),
            adds,
            (before, after),
            channels,
            dict(self.couplings.left),
            seed=self.seed,
        )

    def _scores(self, drawn: nn.Module) -> list[Tensor]:
        found, how = self.couplings.found, self.method
        if how.name == "magnitude":
            return magnitudes(drawn, found)
        if how.name == "perspective":
            return perspective_scores(drawn, found, bounds_of(self.model, found, how.bound), how.alpha)
        batches = [one for big in self.samples.take(_WEIGHED).batches for one in _parts(big, _TOGETHER)]
        scores = first_order(drawn, found, batches, self._loss)
        # What is lost for what is saved: a squared first-order change is in the loss's own unit, whatever the layer.
        return [score / saved for score, saved in zip(scores, saved_by_unit(found, self.costs), strict=True)]

    def _loss(self, model: nn.Module, number: int, batch: Any) -> Tensor:
        generator = torch.Generator().manual_seed((self.seed << 20) + number)
        output = run(model, batch, device_of(model))
        return sensitivity_target(output, generator, self.samples.are_tokens, output_mask(batch))


def _kept(found: Couplings, keep: Sequence[str], model: nn.Module) -> Couplings:
    """The couplings without those of layers that are to stay as they are."""
    names = [name for name, _ in model.named_modules()]
    for pattern in keep:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"keep={pattern!r}: no module has that name, e.g. keep=[{names[-1]!r}]")
    stays = [
        one for one in found.found
        if any(fnmatchcase(side.module, pattern) for side in one.gives() for pattern in keep)
    ]  # fmt: skip
    left = {side.module: "it was asked to keep its channels" for one in stays for side in one.gives()}
    layers = {name for name in left if _width(model.get_submodule(name)) is not None}
    chosen_ones = tuple(one for one in found.found if one not in stays)
    return replace(found, found=chosen_ones, left={**found.left, **{name: left[name] for name in layers}})


def _width(module: nn.Module) -> int | None:
    """Output channels of a convolution or linear layer; None of any other module."""
    found = module.__dict__.get("out_channels", module.__dict__.get("out_features"))
    return found if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)) else None


def _parameters(model: nn.Module) -> int:
    return sum(one.numel() for one in model.parameters())


def _parts(batch: Any, size: int) -> list[Any]:
    """A batch cut into smaller ones."""
    if isinstance(batch, Tensor):
        return list(batch.split(size))
    if not isinstance(batch, Mapping):
        return [batch]
    count = len(next(iter(batch.values())))
    return [{name: one[at : at + size] for name, one in batch.items()} for at in range(0, count, size)]
