"""Fewer channels or fewer bits: the whole network and narrowed ones coded to one size, and the nearest one taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from corank.calibration import Samples, reestimate_norms, run
from corank.data import ImageSet
from corank.devices import device_of
from corank.errors import BudgetError, ConfigError, DataError
from corank.losses import Loss, distance, output_distance, token_distance
from corank.progress import Progress, labelled, silent
from corank.pruning.narrowing import Narrowing
from corank.pruning.record import PRUNED
from corank.quantization.request import FileSize, RateForSize, Target
from corank.storage.artifact import serialized
from corank.storage.model_record import ATTRIBUTE, run_of
from corank.verbs.arguments import check_loss, read_samples, sample_limit
from corank.verbs.opening import ContextOptions
from corank.verbs.prune import FINETUNE, prune
from corank.watching import evaluating

__all__ = ["Candidate", "chosen_share", "narrowing_for", "parted", "quantize_narrowed"]

Coded = Callable[..., nn.Module]
"""``(model, samples, checkpoint=, progress=)`` to a model of the size that was asked for."""

WHOLE = "0"  # the share that goes of the network as it was given
_PART = 5  # of so many samples one is held back where the data has no others
_TOGETHER = 8  # samples whose distance is one number, by which the error of a difference is estimated
_ERRORS = 2.0  # standard errors by which a narrowed network must be nearer than the whole one


@dataclass(frozen=True)
class Candidate:
    """One network that was tried.

    Attributes:
        share: that went, such as "0.3p"; "0" of the whole network.
        distance: from the float network on the samples held back; of a classifier KL in nats.
        parameters, stored_bytes: of the network and of its file.
        why: it could not be had, where it could not; the numbers are None then.
    """

    share: str
    distance: float | None = None
    parameters: int | None = None
    stored_bytes: int | None = None
    why: str | None = None


def quantize_narrowed(
    model: nn.Module, data: Any, how: Narrowing, asked: tuple[ContextOptions, str | Path | None], coded: Coded
) -> nn.Module:
    """The whole network or a narrowed one, whichever is nearest to the float network once it is coded to the size.

    Each narrowed network is what :func:`corank.prune` makes, distilled from the whole one as ``how`` says (on images
    that it has not seen yet, where there are more than are calibrated on), and then coded by ``coded`` from the same
    samples. Distances are measured on samples that none of this has seen. A narrowed
    network is taken only if it is nearer than the whole one by two standard errors of their difference: where the
    measure cannot tell, nothing goes.

    Args:
        model: float; not changed.
        data: as for :func:`corank.quantize`.
        how: which candidates.
        asked: how samples are read and networks looked at, and the folder that keeps what is done.
        coded: quantizes one of them.

    Raises:
        BudgetError: where not even the narrowest network fits into the size.
    """
    options, folder = asked
    trial = _Trial.of(model, data, how, options)
    tried: list[Candidate] = []
    kept: dict[str, tuple[Tensor, nn.Module]] = {}
    best: str | None = None
    for share in (WHOLE, *how.shares):
        progress = labelled(options.progress or silent, "whole" if share == WHOLE else f"{share} fewer")
        prunes, codes = (None if folder is None else Path(folder) / f"{part}-{share}" for part in ("prune", "quantize"))
        try:
            narrow = model if share == WHOLE else trial.narrowed(share, prunes, progress)
            found = coded(narrow, trial.seen, checkpoint=codes, progress=progress)
        except BudgetError as error:
            tried.append(Candidate(share, why=str(error)))
            continue
        if share != WHOLE:
            found.__dict__[PRUNED] = narrow.__dict__[PRUNED]
        apart = trial.distances(found)
        parameters = sum(one.numel() for one in narrow.parameters())
        tried.append(Candidate(share, float(apart.mean()), parameters, len(serialized(found))))
        kept[share] = apart, found
        best = chosen_share({name: one for name, (one, _) in kept.items()})
        kept = {name: one for name, one in kept.items() if name in (WHOLE, best)}
    if best is None:
        raise BudgetError(f"no network fits, with all channels or with fewer; the narrowest: {tried[-1].why}")
    return _told(kept[best][1], best, tried, trial)


def narrowing_for(asked: str | Narrowing, target: Target) -> Narrowing:
    """What is tried.

    Raises:
        ConfigError: for what names no candidates, or a target that is no size.
    """
    how = Narrowing.read(asked)
    if not isinstance(target, (FileSize, RateForSize)):
        raise ConfigError(
            "prune weighs channels against bits for a size; give one: quantize(model, data, size='40KB', "
            "prune='auto'), or prune first: quantize(corank.prune(model, data, 0.3), data, bits=4)"
        )
    return how


def chosen_share(distances: Mapping[str, Tensor]) -> str:
    """The share whose network is nearest, or "0" where that is not told apart from it.

    Args:
        distances: by share, of each part of the samples ``(P,)``, the same parts for all.
    """
    best = min(distances, key=lambda share: float(distances[share].mean()))
    if best == WHOLE or WHOLE not in distances:
        return best
    gained = distances[WHOLE] - distances[best]
    error = float(gained.std()) / len(gained) ** 0.5 if len(gained) > 1 else float("inf")
    return best if float(gained.mean()) > _ERRORS * error else WHOLE


def parted(samples: Samples, limit: int, held_back: int) -> tuple[Samples, Samples]:
    """The samples that are calibrated on, and behind them those held back.

    Args:
        samples: at most ``limit + held_back``.
        limit: to calibrate on, at most.
        held_back: all there are beyond the limit, or one in five where that is more; at most so many.

    Raises:
        DataError: for a single sample.
    """
    held = min(held_back, max(len(samples) - limit, len(samples) // _PART, 1))
    count = len(samples) - held
    if count < 1:
        raise DataError("one sample cannot be calibrated on and held back; give some hundred")
    parts: tuple[list[Any], list[Any]] = ([], [])
    for batch in samples.batches:
        size = len(tree_leaves(batch)[0])
        here = max(0, min(size, count))
        for own, start, end in zip(parts, (0, here), (here, size), strict=True):
            if start < end:
                own.append(tree_map(lambda leaf, start=start, end=end: leaf[start:end], batch))
        count -= here
    first, second = (Samples(tuple(own), samples.stacked) for own in parts)
    return first, second


@dataclass(frozen=True)
class _Trial:
    """What candidates are made of and measured by.

    Attributes:
        model: the float network.
        how: candidates are made.
        options: how samples are read and networks looked at.
        seen, held: samples that are calibrated on, and those held back.
        trained_on: what narrowed networks are distilled on.
        reference: what the float network gives for those.
        loss: the distance.
    """

    model: nn.Module
    how: Narrowing
    options: ContextOptions
    seen: Samples
    held: Samples
    trained_on: Any
    reference: tuple[Any, ...]
    loss: Loss

    @classmethod
    def of(cls, model: nn.Module, data: Any, how: Narrowing, options: ContextOptions) -> _Trial:
        limit = sample_limit(data, options.samples)
        samples = read_samples(data, limit + how.held_back, options.batch_size, options.seed)
        seen, held = parted(samples, limit, how.held_back)
        trained_on = _trained_on(data, how, options.seed, seen, len(held))
        held = held.rebatched(_TOGETHER)
        reference = _outputs(model, held)
        usual = token_distance if seen.are_tokens else output_distance
        loss = check_loss(options.loss, reference[0]) or usual
        return cls(model, how, options, seen, held, trained_on, reference, loss)

    def narrowed(self, share: str, folder: Path | None, progress: Progress) -> nn.Module:
        """The network without so much of it."""
        options, count = self.options, len(self.seen)
        found = prune(
            self.model, self.trained_on, share, self.how.method, iterations=self.how.iterations, samples=count,
            seed=options.seed, device=options.device, checkpoint=folder, progress=progress,
        )  # fmt: skip
        if not self.how.iterations:
            reestimate_norms(found, list(self.seen.batches), count)
        return found

    def distances(self, model: nn.Module) -> Tensor:
        """From the float network, of each batch held back, float64 ``(P,)``."""
        pairs = zip(_outputs(model, self.held), self.reference, self.held.batches, strict=True)
        return torch.tensor([float(distance(self.loss, *one)) for one in pairs], dtype=torch.float64)


def _trained_on(data: Any, how: Narrowing, seed: int, seen: Samples, held: int) -> Any:
    """Of images as many as the steps can see, without those held back; of other data what is calibrated on."""
    if not isinstance(data, ImageSet):
        return list(seen.batches)
    order = np.random.RandomState(seed).permutation(len(data))  # that of ImageSet.sample
    rest = np.concatenate([order[: len(seen)], order[len(seen) + held :]])
    return data.select(rest[: max(len(seen), how.iterations * FINETUNE.batch_size)])


@torch.no_grad()
def _outputs(model: nn.Module, samples: Samples) -> tuple[Any, ...]:
    with evaluating(model):
        return tuple(run(model, batch, device_of(model)) for batch in samples.batches)


def _told(model: nn.Module, share: str, tried: list[Candidate], trial: _Trial) -> nn.Module:
    """The model, whose record says what was tried."""
    record, by = run_of(model), {one.share: one for one in tried}
    narrowed = [one for one in tried if one.share != WHOLE and one.distance is not None]
    if share == WHOLE:
        other = f"the nearest with fewer {_shown(min(narrowed, key=_distance))}" if narrowed else "none with fewer fits"
    else:
        other = f"with all {_shown(by[WHOLE])}" if by[WHOLE].distance is not None else "with all none fits"
    what = "all channels stay" if share == WHOLE else f"without {share} of the network"
    many = "network was" if len(tried) == 2 else "networks were"
    text = (
        f"{what}: {_shown(by[share])} from the float network on {len(trial.held)} samples held back, {other}; "
        f"{len(tried) - 1} narrowed {many} tried, each after {trial.how.iterations} distilled steps"
    )
    listed = tuple(asdict(one) for one in tried)
    model.__dict__[ATTRIBUTE] = replace(record, notes=(*record.notes, text), candidates=listed)
    return model


def _distance(one: Candidate) -> float:
    return float("inf") if one.distance is None else one.distance


def _shown(one: Candidate) -> str:
    return f"{max(0.0, _distance(one)):.4f}"  # a divergence may be less than nothing by rounding
