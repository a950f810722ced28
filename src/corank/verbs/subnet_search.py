"""The public call that looks for subnets: accuracy against bytes, or multiply-adds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from corank.calibration import Samples, run
from corank.calibration.seeds import generator_of
from corank.checkpoint import Checkpoint, fingerprint
from corank.config import check_progress
from corank.devices import device_of
from corank.errors import BudgetError, ConfigError
from corank.evaluation import kept_samples
from corank.evaluation.kept import scored_tensors
from corank.precision import exact_float32
from corank.progress import Progress, silent
from corank.sizes import parse_size
from corank.storage.artifact import serialized
from corank.training.elastic import ElasticConv
from corank.training.subnets import Space, active, choose, drawn, extreme, layers_of, space_of
from corank.training.supernet import bits_of
from corank.verbs.arguments import check_kinds, check_numbers, read_samples
from corank.verbs.scoring import Scorer
from corank.verbs.supernet import at_subnet, reference_of, taken_out
from corank.watching import watched

__all__ = ["ScoredSubnet", "SubnetSearch", "multiply_adds_of", "search_subnets"]

_CHANGED = 0.15  # of the choices of a child, on average
_DRAWN = 0.4  # of the trials, at random, before the first child
_TRIES = 200  # to find a subnet that was not tried and is small enough
_CALIBRATED = 512
_STEP = "subnets"


@dataclass(frozen=True)
class ScoredSubnet:
    """One subnet that was tried.

    Attributes:
        bits: of the supernet that it is of.
        chosen: what is chosen in the parts that run; for :func:`corank.extract_subnet`.
        score: percent of samples whose label is the largest logit; without labels, on which it agrees with the largest
            subnet of the most bits.
        size_bytes: of the file.
        multiply_adds: of one sample.
        reference: the network's name, where it has one.
    """

    bits: int
    chosen: Mapping[str, int]
    score: float
    size_bytes: int
    multiply_adds: int
    reference: str | None = None


@dataclass(frozen=True)
class SubnetSearch:
    """What a search found.

    Attributes:
        trials: in the order they were tried.
        by: what the front weighs the score against: "size_bytes" or "multiply_adds".
    """

    trials: tuple[ScoredSubnet, ...]
    by: str

    @property
    def front(self) -> tuple[ScoredSubnet, ...]:
        """Those that no other is better than at the same cost or less, cheapest first."""
        return tuple(_front(self.trials, self.by))


@exact_float32()
def search_subnets(
    models: nn.Module | Sequence[nn.Module],
    data: Any,
    evaluation: Any,
    *,
    trials: int = 60,
    size: int | str | None = None,
    multiply_adds: int | None = None,
    by: str = "size_bytes",
    samples: int | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> SubnetSearch:
    """Tries subnets of one supernet, or of one for each bit width, and says which are worth their bytes.

    Random ones first, then children of the best so far, a few of whose choices are changed or come from another. Each
    has its batch statistics estimated anew before it is scored; none trains.

    Args:
        models: supernets of the same choices and of different bits, such as :func:`corank.train_supernet` returns;
            they are not changed.
        data: that batch statistics are estimated on, unlabelled.
        evaluation: that subnets are scored on, as for :func:`corank.evaluate`; keep other samples for the number that
            you tell.
        trials: subnets to score.
        size: the largest file, in bytes or "20KB" (1 KB is 1000 bytes); None for any.
        multiply_adds: the most of one sample; None for any.
        by: "size_bytes" or "multiply_adds".
        samples: of the data, at most; None for 512.
        seed: draws the subnets.
        checkpoint: a folder that keeps what was tried; the same call with the same folder goes on from there.
        progress: called with (what, done, total).

    Raises:
        BudgetError: where the smallest subnet is too large, naming its size.
        ConfigError, ModelError, DataError: for bad input.
    """
    found = [models] if isinstance(models, nn.Module) else list(models)
    for one in found:
        check_kinds(one)
    check_progress(progress)
    check_numbers(samples, 1, seed)
    if type(trials) is not int or trials < 1:
        raise ConfigError(f"trials={trials!r}: subnets to score, a positive whole number, e.g. trials=60")
    if by not in ("size_bytes", "multiply_adds"):
        raise ConfigError(f"by={by!r}: 'size_bytes' or 'multiply_adds'")
    limits = {"size_bytes": None if size is None else parse_size(size), "multiply_adds": multiply_adds}
    seen = read_samples(data, samples or _CALIBRATED, 64, seed)
    owned = _by_bits(found)
    scored = kept_samples(evaluation)
    space = space_of(next(iter(owned.values())))
    asked = {"verb": "subnets", "by": by, "limits": limits, "seed": seed, "trials": trials}
    kept = _kept(checkpoint, owned, [*seen.batches, *scored_tensors(scored)], asked) if checkpoint else Checkpoint(None)
    trying = _Trying(owned, seen, _score_of(owned, seen, scored), limits)
    trying.check_smallest(space)
    done = kept.load(_STEP)
    tried = [] if done is None else [ScoredSubnet(**one) for one in done[1]["trials"]]
    while len(tried) < trials:
        one = next(_untried(trying, space, tried, generator_of(seed, "search", len(tried)), (trials, by)), None)
        if one is None:
            break
        tried.append(trying.scored(*one))
        kept.save(_STEP, {}, {"trials": [asdict(other) for other in tried]})
        best = max(other.score for other in tried)
        (progress or silent)(f"searching, best {best:.2f} %", len(tried), trials)
    return SubnetSearch(tuple(tried), by)


@torch.no_grad()
def multiply_adds_of(model: nn.Module, samples: Samples) -> int:
    """Multiply-adds of one sample in the convolutions of a supernet, as it is chosen."""
    total = 0

    def counting(_name: str) -> Any:
        def count(module: ElasticConv, _args: object, _named: object, output: Tensor) -> None:
            nonlocal total
            total += output[0].numel() * module.now.columns * module.now.kernel**2

        return count

    with watched(dict(layers_of(model)), counting):
        run(model, samples.first(1), device_of(model))
    return total


Tried = tuple[int, dict[str, int]]
"""Bits, and what is chosen in the parts that run."""


@dataclass(frozen=True)
class _Trying:
    """Subnets in place: what each costs and scores."""

    models: Mapping[int, nn.Module]
    seen: Samples
    score: Callable[[nn.Module], float]
    limits: Mapping[str, int | None]

    def running(self, bits: int, chosen: Mapping[str, int]) -> Tried:
        """Chooses it; without what does not run."""
        choose(self.models[bits], chosen)
        return bits, {name: chosen[name] for name in active(self.models[bits])}

    def costs(self, bits: int) -> dict[str, int]:
        """Of what is chosen."""
        model = self.models[bits]
        return {"size_bytes": len(serialized(taken_out(model))), "multiply_adds": multiply_adds_of(model, self.seen)}

    def fits(self, bits: int) -> bool:
        """Whether what is chosen is small enough."""
        if all(limit is None for limit in self.limits.values()):
            return True
        costs = self.costs(bits)
        return all(limit is None or costs[name] <= limit for name, limit in self.limits.items())

    def scored(self, bits: int, chosen: dict[str, int]) -> ScoredSubnet:
        """One subnet, its norms estimated anew."""
        model = self.models[bits]
        at_subnet(model, chosen, self.seen)
        return ScoredSubnet(bits, chosen, self.score(model), **self.costs(bits), reference=reference_of(model))

    def check_smallest(self, space: Space) -> None:
        """Raises BudgetError where nothing can fit."""
        bits = min(self.models)
        self.running(bits, extreme(space, largest=False))
        if not self.fits(bits):
            costs = self.costs(bits)
            raise BudgetError(
                f"the smallest subnet, of {bits} bits, takes {costs['size_bytes']} bytes and {costs['multiply_adds']} "
                f"multiply-adds: give at least size={costs['size_bytes']}, or train narrower or fewer bits"
            )


def _untried(
    trying: _Trying, space: Space, tried: Sequence[ScoredSubnet], generator: torch.Generator, plan: tuple[int, str]
) -> Iterator[Tried]:
    """Subnets that are small enough and were not tried: the extremes, then random ones, then children of the front."""
    known, widths = {(one.bits, tuple(one.chosen.items())) for one in tried}, sorted(trying.models)
    corners = [(bits, extreme(space, large)) for bits in widths for large in (True, False)]
    for turn in range(_TRIES):
        if turn < len(corners):
            bits, chosen = corners[turn]
        elif len(tried) < _DRAWN * plan[0] or turn > _TRIES // 2:
            bits, chosen = widths[int(torch.randint(len(widths), (1,), generator=generator))], drawn(space, generator)
        else:
            bits, chosen = _child(list(_front(tried, plan[1])), widths, space, generator)
        one = trying.running(bits, chosen)
        if (one[0], tuple(one[1].items())) not in known and trying.fits(bits):
            yield one


def _child(
    parents: Sequence[ScoredSubnet], widths: Sequence[int], space: Space, generator: torch.Generator
) -> tuple[int, Mapping[str, int]]:
    """Each choice of one of two parents, and some drawn anew."""

    def chance() -> float:
        return float(torch.rand((), generator=generator, dtype=torch.float32))

    first, second = (parents[int(chance() * len(parents))] for _ in range(2))
    fresh = drawn(space, generator)
    found = {}
    for name in space:
        parent = first if chance() < 0.5 else second
        found[name] = fresh[name] if chance() < _CHANGED else parent.chosen.get(name, fresh[name])
    bits = widths[int(chance() * len(widths))] if chance() < _CHANGED else first.bits
    return bits, found


def _front(trials: Sequence[ScoredSubnet], by: str) -> Iterator[ScoredSubnet]:
    best = float("-inf")
    for one in sorted(trials, key=lambda one: (getattr(one, by), -one.score)):
        if one.score > best:
            best = one.score
            yield one


def _by_bits(models: Sequence[nn.Module]) -> dict[int, nn.Module]:
    """Copies, by bits."""
    owned: dict[int, nn.Module] = {}
    for one in models:
        bits = bits_of(one)
        if bits is None:
            raise ConfigError(
                "a float supernet has no files to weigh; train_supernet(model, data, 4) gives one of 4 bits"
            )
        if bits in owned:
            raise ConfigError(f"two supernets of {bits} bits were given; give one of each")
        owned[bits] = copy.deepcopy(one).eval()
    if len({tuple(space_of(one).items()) for one in owned.values()}) != 1:
        raise ConfigError("supernets of the same choices are searched together, and at least one; these differ")
    return owned


def _score_of(owned: Mapping[int, nn.Module], seen: Samples, scored: Any) -> Callable[[nn.Module], float]:
    reference = copy.deepcopy(owned[max(owned)])
    at_subnet(reference, extreme(space_of(reference), largest=True), seen)
    return partial(_scored, Scorer(reference, scored))


def _scored(scorer: Scorer, model: nn.Module) -> float:
    found = scorer(model)
    return (found.agreement if found.top1 is None else found.top1) or 0.0


def _kept(folder: str | Path, owned: Mapping[int, nn.Module], data: Sequence[Any], asked: dict[str, Any]) -> Checkpoint:
    tensors = [one for model in owned.values() for one in (*model.parameters(), *model.buffers())]
    return Checkpoint(folder, {**asked, "models": fingerprint(tensors), "data": fingerprint(tree_leaves(data))})
