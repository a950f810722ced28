"""Codecs and rounders side by side on one network: accuracy against the bytes that are really stored."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from corank.autograd import recording
from corank.checkpoint import fingerprint
from corank.codecs import CODECS, Codec, RatedLevels, Uniform
from corank.config import check_progress, choose
from corank.errors import ConfigError, CorankError
from corank.evaluation import Evaluation, Recorder, Replay, evaluate, kept_samples, placed, scored_tensors
from corank.files import read_at_most, write_whole
from corank.presets import PRESETS, Preset
from corank.progress import Progress, silent
from corank.rounding import ROUNDERS, Nearest, Rounder
from corank.search import Greedy, Search
from corank.storage.artifact import serialized
from corank.storage.model_record import run_of
from corank.verbs.arguments import read_samples
from corank.verbs.jobs import in_parallel
from corank.verbs.quantize import quantize

__all__ = ["Case", "Comparison", "cases", "compare"]

_BATCH = 32
_LARGEST_BYTES = 64_000_000  # of a file of results


@dataclass(frozen=True)
class Case:
    """One way to code a network.

    Attributes:
        codec, rounder: names in :data:`~corank.codecs.CODECS` and :data:`~corank.rounding.ROUNDERS`.
        bits: of a weight's code.
        budget: extra bits per weight for adapters; 0 for none.
    """

    codec: str
    rounder: str
    bits: int
    budget: float = 0.0

    @property
    def label(self) -> str:
        """Such as ``uniform gptq 3+0.25``."""
        return f"{self.codec} {self.rounder} {self.bits}" + (f"+{self.budget:g}" if self.budget else "")


@dataclass(frozen=True)
class Comparison:
    """What every case gave, and what all had in common.

    Attributes:
        float_scores: the float network's :class:`~corank.evaluation.Evaluation`, as a mapping.
        results: case label to a record: the case's fields, ``equivalent_bits``, ``stored_bytes``, ``seconds`` and the
            scores; or the case's fields and ``error``, for what a codec or a rounder refuses.
    """

    float_scores: dict[str, Any]
    results: dict[str, dict[str, Any]] = field(default_factory=dict)


def cases(
    codecs: Sequence[str] | None = None,
    rounders: Sequence[str] = ("nearest", "gptq"),
    bits: Sequence[int] = (4, 3, 2),
    budgets: Sequence[float] = (0.0, 0.25),
) -> list[Case]:
    """Every combination that the codecs have a width for.

    Args:
        codecs: names; None: all.
        rounders: names.
        bits: widths, 1 to 8.
        budgets: extra bits per weight for adapters.

    Raises:
        ConfigError: for an unknown name, or where nothing is left.
    """
    for name in rounders:
        choose(name, ROUNDERS, "rounder")
    chosen = sorted(CODECS) if codecs is None else list(codecs)
    for name in chosen:
        choose(name, CODECS, "codec")
    found = [
        Case(codec, rounder, width, float(budget))
        for width in bits
        for codec in chosen
        if codec_of(codec, width) is not None
        for rounder in rounders
        for budget in budgets
    ]
    if not found:
        raise ConfigError(f"none of the codecs {', '.join(chosen)} has a width of {', '.join(map(str, bits))} bits")
    return found


def codec_of(name: str, bits: int) -> Codec | None:
    """The codec of that name and width with its other settings as they are by default; None where it has no such
    width. `uniform` gets the range of least squared error and, below 8 bits, half offsets, as in preset ``fast``;
    `rate-uniform` and `trellis` have so many bits after entropy coding."""
    if name == "uniform":
        return Uniform(bits, range="mse", half=bits < 8)
    try:
        if issubclass(CODECS[name], RatedLevels):
            return CODECS[name]().for_bits(bits)
        return CODECS[name](bits=bits)  # pyright: ignore[reportCallIssue]
    except ConfigError:
        return None


@recording()
def compare(
    model: nn.Module,
    data: Any,
    evaluation: Any,
    wanted: Sequence[Case] | None = None,
    *,
    samples: int = 512,
    search: str | Search = "greedy",
    seed: int = 0,
    device: str | torch.device = "auto",
    out: str | Path | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Comparison:
    """Codes the network in every way asked for, and scores each.

    Rounding to nearest codes every layer by itself; other rounders work layer after layer with bias correction, as in
    preset ``fast``. Adapters are fitted to the loss, in four rounds. The first and last layer have 8 bits.

    Args:
        model: the trained float network; it is not changed.
        data: unlabelled calibration samples, as for :func:`corank.quantize`.
        evaluation: labelled or unlabelled samples to score on, as for :func:`corank.evaluate`.
        wanted: what to run; None: ``cases()``.
        samples: calibration samples, at most.
        search: of the adapters' ranks.
        seed, device: as for :func:`corank.quantize`.
        out: a JSON file that keeps every result as soon as it is there; what it holds already is not run again.
        jobs: cases run at the same time, fewer where the memory that the first one took is not free so many times.
        progress: called with (what, done, total).

    Raises:
        ConfigError: for bad settings, or an ``out`` made with another network, other data, search or seed.
        OutputError: when ``out`` cannot be written.
    """
    check_progress(progress)
    if type(jobs) is not int or jobs < 1:
        raise ConfigError(f"jobs={jobs!r}: a positive whole number, e.g. jobs=2")
    chosen = list(wanted) if wanted is not None else cases()
    batches = list(read_samples(data, samples, _BATCH, seed).batches)
    task = _Task(model, batches, kept_samples(evaluation), samples, search, seed, device)
    book = _Book(None if out is None else Path(out), {} if out is None else task.identity())
    recorder = Recorder(model if task.where is None else placed(model, task.where))
    float_scores = _scores(evaluate(recorder, task.evaluation, device=task.where))
    task = replace(task, float_outputs=recorder.outputs)
    if book.comparison is None:
        book.comparison = Comparison(float_scores)
    told = progress or silent
    left = [case for case in chosen if case.label not in book.comparison.results]
    done = len(chosen) - len(left)
    for case, record in in_parallel(task, left, jobs):
        book.add(case, record)
        done += 1
        told("comparing", done, len(chosen))
    results = {case.label: book.comparison.results[case.label] for case in chosen}
    return Comparison(book.comparison.float_scores, results)


@dataclass(frozen=True)
class _Task:
    """What all cases share."""

    model: nn.Module
    data: Any
    evaluation: Any
    samples: int
    search: str | Search
    seed: int
    device: str | torch.device
    float_outputs: list[Any] | None = None

    @property
    def where(self) -> torch.device | None:
        return None if self.device == "auto" else torch.device(self.device)

    def identity(self) -> dict[str, Any]:
        """What tells this comparison from others, for its file."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        search = self.search if isinstance(self.search, str) else repr(self.search)
        return {
            "model": fingerprint(tensors),
            "data": fingerprint(tree_leaves(self.data)),
            "evaluation": fingerprint(scored_tensors(self.evaluation)),
            "samples": self.samples,
            "search": search,
            "seed": self.seed,
        }

    def __call__(self, case: Case) -> dict[str, Any]:
        """One case's record."""
        started = time.perf_counter()
        about: dict[str, Any] = {**vars(case)}
        try:
            preset = _preset(case)
            small = quantize(
                self.model, self.data, bits=preset.codec.bits, budget=case.budget, preset=preset, search=self.search,
                samples=self.samples, seed=self.seed, device=self.device,
            )  # fmt: skip
        except CorankError as error:
            return {**about, "error": str(error)}
        seconds = time.perf_counter() - started
        run = run_of(small)
        about |= {"equivalent_bits": run.equivalent_bits, "stored_bytes": len(serialized(small))}
        reference = self.model if self.float_outputs is None else Replay(self.float_outputs)
        found = evaluate(small, self.evaluation, reference, device=self.where)
        return {**about, "seconds": round(seconds, 2), **_scores(found)}


def _preset(case: Case) -> Preset:
    fast = PRESETS["fast"]
    codec = codec_of(case.codec, case.bits)
    rounder: Rounder = PRESETS["fast"].layer.rounder if case.rounder == "gptq" else ROUNDERS[case.rounder]()
    nearest = isinstance(rounder, Nearest)
    layer = replace(fast.layer, codec=codec, rounder=rounder, sequential=not nearest, bias_correction=not nearest)
    edge = replace(fast.edge, rounder=rounder, sequential=not nearest, bias_correction=not nearest)
    return Preset(layer, Greedy(), edge, case.budget)


def _scores(found: Evaluation) -> dict[str, Any]:
    return {name: value for name, value in vars(found).items() if value is not None}


class _Book:
    """The file of results; written whole after each."""

    def __init__(self, path: Path | None, identity: dict[str, Any]) -> None:
        self._path, self._identity = path, identity
        self.comparison: Comparison | None = None
        if path is not None and path.exists():
            self.comparison = _read(path, identity)

    def add(self, case: Case, record: dict[str, Any]) -> None:
        assert self.comparison is not None
        self.comparison.results[case.label] = record
        if self._path is None:
            return
        whole = {"made_with": self._identity, **vars(self.comparison)}
        write_whole(self._path, json.dumps(whole, indent=1) + "\n")


def _read(path: Path, identity: dict[str, Any]) -> Comparison:
    try:
        whole = json.loads(read_at_most(path, _LARGEST_BYTES))
        made_with, found = whole["made_with"], Comparison(dict(whole["float_scores"]), dict(whole["results"]))
        sound = all(isinstance(record, dict) for record in found.results.values())
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} is not a file of results: {error}; give another path") from error
    if not isinstance(made_with, dict) or not sound:
        raise ConfigError(f"{path} is not a file of results; give another path")
    others = [name for name in sorted({*made_with, *identity}) if made_with.get(name) != identity.get(name)]
    if others:
        raise ConfigError(
            f"{path} was made with another network, other data, search or seed: it differs in {', '.join(others)}; "
            "give another path"
        )
    return found
