"""The public call: settings chosen by trials, each recorded, resumable."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from corank.autograd import recording
from corank.compiled import uncompiled
from corank.config import check_progress, choose
from corank.errors import ConfigError, ModelError
from corank.files import write_whole
from corank.progress import Progress, silent
from corank.tuning.importance import importance
from corank.tuning.records import load_records
from corank.tuning.records import remember as remember_record
from corank.tuning.space import Configuration, Space
from corank.tuning.storage import Store
from corank.tuning.study import StudyPlan, chosen_trial, run_study
from corank.tuning.trial import COMPLETE, Goal, Measurement, Trial, front_of
from corank.tuning.tuners import TUNERS, Tuner
from corank.verbs.arguments import check_numbers
from corank.verbs.tuning_request import Opened, Score, TuneOptions, asked_space, open_tuning, record_of_study

__all__ = ["Tuned", "tune"]


@dataclass(frozen=True)
class Tuned:
    """What a tuning found.

    Attributes:
        best: the trial that meets the goal best.
        trials: all, in order.
        file: the best trial's, made once more; None where a function of one's own measured.
        final: what that file scores on samples that nothing was chosen by; None likewise.
        space: of the configurations.
        goal: what was wanted.
        scored: what the score is.
        reference: what the float network scores on the samples that trials were scored on; None where there is none.
    """

    best: Trial
    trials: tuple[Trial, ...]
    file: bytes | None
    final: Measurement | None
    space: Space
    goal: Goal
    scored: str
    reference: float | None

    @property
    def front(self) -> list[Trial]:
        """The trials that no other one beats in both score and size."""
        return front_of(self.trials)

    def save(self, path: str | Path) -> int:
        """Writes the best file, whole or not at all; returns its bytes.

        Raises:
            ModelError: where there is none. OutputError: when the path cannot be written.
        """
        if self.file is None:
            raise ModelError("a study of one's own score makes no file; its best configuration is .best.configuration")
        write_whole(path, self.file)
        return len(self.file)

    def to_json(self) -> dict[str, Any]:
        """Plain data: every trial, and which choices mattered."""
        return {
            "space": self.space.to_json(), "goal": self.goal.to_json(), "scored": self.scored,
            "reference": self.reference, "best": self.best.number,
            "final": None if self.final is None else asdict(self.final),
            "front": [one.number for one in self.front],
            "importance": importance(self.space, self.trials, self.goal),
            "trials": [{**asdict(one), "configuration": dict(one.configuration)} for one in self.trials],
        }  # fmt: skip


@uncompiled()
@recording()
def tune(
    model: nn.Module | None = None,
    data: Any = None,
    *,
    space: str | Space = "corank",
    size: int | str | None = None,
    least: float | None = None,
    trials: int = 20,
    tuner: str | Tuner = "boosted",
    evaluation: Any = None,
    score: Score | None = None,
    storage: str | None = None,
    study: str = "corank",
    samples: int = 1600,
    selection: int = 2000,
    rungs: Sequence[float] | None = None,
    patience: int | None = 10,
    latency: bool = False,
    records: Sequence[str | Path] = (),
    remember: str | Path | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    reference: str | None = None,
    configuration: Configuration | None = None,
    command: Callable[[Configuration], str] | None = None,
    progress: Progress | None = None,
) -> Tuned:
    """Chooses settings by trials: those of a file of corank, of int8 in ONNX Runtime, or of a space of one's own.

    Data are parted in three that share nothing: calibration, selection (every trial is scored there) and final (the
    best one is, once). All trials are scored on the same samples.

    Args:
        model: the trained float network; not changed. None for a ``score`` of one's own.
        data: samples as for :func:`corank.quantize`; their labels are never read.
        space: "corank", "int8" (the 96 configurations of Quantune, arXiv 2202.05048), or a
            :class:`~corank.tuning.Space`.
        size: of the file, at most, in bytes or "60KB"; looked for is the best score within it.
        least: score that is good enough; looked for is the smallest file that has it. Without ``size`` and ``least``
            it is the best score.
        trials: in all, with those that the storage has already.
        tuner: a name of :data:`~corank.tuning.tuners.TUNERS` ("boosted": Quantune's trees), or a
            :class:`~corank.tuning.tuners.Tuner`.
        evaluation: labelled samples: the score is then top-1 on them, in percent. None: the percent of held-back
            samples of ``data`` that get the class that the float network gives them.
        score: for a space of one's own: takes a configuration, returns a number, a
            :class:`~corank.tuning.Measurement` or a mapping of its fields; the higher the better.
        storage: where trials are kept, such as "sqlite:///study.db" (any of optuna's), for runs to come and for other
            processes at the same time; None keeps them in memory.
        study: its name in the storage.
        samples: to calibrate on, at most.
        selection: samples that trials are scored on, at most; the final number is taken on as many others.
        rungs: shares of the calibration samples, ascending to 1: a trial goes on to the next where it is among the best
            third so far, or behind by no more than its standard error. None: (0.25, 1) for "corank", else (1,).
        patience: trials without a gain over the score's standard error after which the study ends; None: never.
        latency: whether the time of one sample is measured, too; of equal scores and sizes the fastest is best.
        records: files of what other models scored, for boosted trees, beside those that ship.
        remember: file of such records that this study's trials are added to; read, too, where it is there.
        seed: of the parts of the data, of every trial and of the tuner's draws.
        device: as for :func:`corank.quantize`; int8 runs on the CPU.
        reference: name of the model, kept in files and records.
        configuration: this one alone is made and measured; no study.
        command: text that makes a configuration again; None: a call of this function.
        progress: called with (what, done, total).

    Returns:
        The best trial with its file, the final number, and all trials.

    Raises:
        ConfigError, ModelError, DataError: for bad input, a storage of another study among it.
        BudgetError: where no trial meets the goal, naming the nearest.
    """
    check_progress(progress)
    check_numbers(samples, selection, seed)
    goal = Goal(size, least)
    asked = asked_space(space, size is not None)
    shares = _shares(rungs, asked)
    _check_counts(trials, patience)
    policy = tuner if isinstance(tuner, Tuner) else choose(tuner, TUNERS, "tuner")()
    options = TuneOptions(asked, goal, score, samples, selection, shares, latency, seed, device, reference)
    opened = open_tuning(model, data, evaluation, options)
    if configuration is not None:
        return _alone(opened, asked.checked(configuration), options)
    own = [] if remember is None or not Path(remember).exists() else [remember]
    more = [one for path in (*records, *own) for one in load_records(path) if one.space == asked.name]
    task = replace(opened.task, records=(*opened.task.records, *more))
    plan = StudyPlan(task, policy, goal, trials, shares, patience, seed, command or _call(options),
                     _first(asked))  # fmt: skip
    found = run_study(Store(storage, study, opened.identity), opened.measure, plan, progress or silent)
    best = chosen_trial(found, goal)
    if remember is not None:
        pairs = [(one.configuration, seen) for one in found if one.state == COMPLETE and (seen := one.measurement)]
        remember_record(remember, record_of_study(opened, reference or type(model).__name__, pairs))
    return _finished(opened, best, found, options)


def _finished(opened: Opened, best: Trial, trials: Sequence[Trial], options: TuneOptions) -> Tuned:
    """The best trial's file made again, and scored on what nothing was chosen by."""
    file, final = None, None
    if opened.maker is not None and opened.final is not None:
        made = opened.maker(best.configuration, 1.0)
        file, final = made.file, opened.final.of(made)
        known = best.measurement.sha256 if best.measurement else None
        if known != hashlib.sha256(file).hexdigest():
            raise ModelError(f"trial {best.number} made again has other bytes: another library or processor than then?")
    whole, reference = options.goal.least is None, opened.task.reference
    return Tuned(
        best, tuple(trials), file, final, options.space, options.goal, opened.scored, reference if whole else None
    )


def _alone(opened: Opened, configuration: Configuration, options: TuneOptions) -> Tuned:
    trial = Trial(0, COMPLETE, configuration, (opened.measure(configuration, 1.0),), seed=options.seed)
    return _finished(opened, trial, [trial], options)


def _call(options: TuneOptions) -> Callable[[Configuration], str]:
    def text(configuration: Configuration) -> str:
        size = "" if options.goal.most is None else f", size={options.goal.most}"
        numbers = f"samples={options.samples}, selection={options.selection}, seed={options.seed}"
        own = f"space={options.space.name!r}{size}, {numbers}, configuration={dict(configuration)}"
        return f"corank.tune(model, data, {own})"

    return (lambda one: f"score({dict(one)})") if options.score is not None else text


def _first(space: Space) -> tuple[Configuration, ...]:
    """Of corank's own space the plain one, which no tuning should end below."""
    return tuple(space.first(1)) if space.name.startswith("corank") else ()


def _shares(rungs: Sequence[float] | None, space: Space) -> tuple[float, ...]:
    if rungs is None:
        return (0.25, 1.0) if space.name.startswith("corank") else (1.0,)
    found = tuple(float(one) for one in rungs)
    if not found or found[-1] != 1.0 or sorted(set(found)) != list(found) or found[0] <= 0:
        raise ConfigError(f"rungs={rungs!r}: shares of the data, ascending to 1, e.g. rungs=(0.25, 1)")
    return found


def _check_counts(trials: int, patience: int | None) -> None:
    if type(trials) is not int or trials < 1:
        raise ConfigError(f"trials={trials!r}: a whole number from 1 on, e.g. trials=20")
    if patience is not None and (type(patience) is not int or patience < 1):
        raise ConfigError(f"patience={patience!r}: trials without a gain, from 1 on, or None")
