"""`corank tune`: a network and samples in, the best of many ways to make it small out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

import corank
import corank.cli.options as options
import corank.cli.quantize_options as shared
import corank.cli.tune_options as asked
from corank.cli.errors import Interrupted
from corank.cli.invocation import command_line
from corank.cli.progress import study_bar
from corank.cli.screen import results_console, show_lines
from corank.cli.sources import InputOptions, chosen_device
from corank.cli.tuning_request import Given, Outputs, asked_for, remade, show_trial
from corank.tuning.space import written
from corank.tuning.study import shown
from corank.tuning.trial import COMPLETE, Trial
from corank.verbs.tune import Tuned

__all__ = ["tune"]


def tune(
    context: typer.Context,
    model: asked.Model = None,
    data: asked.Data = None,
    out: asked.Out = None,
    space: asked.Space = "corank",
    size: asked.Size = None,
    least: asked.Least = None,
    choice: asked.Choices = None,
    latency: asked.Latency = False,
    trials: asked.Trials = 20,
    tuner: asked.TunerName = "boosted",
    patience: asked.Patience = 10,
    whole: asked.Whole = False,
    storage: asked.Storage = None,
    study: asked.Study = "corank",
    records: asked.Records = None,
    remember: asked.Remember = None,
    configuration: asked.Configuration = None,
    show: asked.Show = None,
    weights: options.Weights = None,
    pretrained: options.Pretrained = False,
    evaluation: shared.Evaluation = None,
    samples: asked.Samples = 1600,
    selection: asked.Selection = 2000,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    image_key: options.ImageKey = None,
    label_key: options.LabelKey = None,
    length: options.Length = None,
    label: options.LabelPattern = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    record: options.RecordFile = None,
    report: options.ReportFolder = None,
    quiet: options.Quiet = False,
) -> None:
    """Choose settings by trials, each recorded, and make the best file."""
    if show is not None:
        show_lines(results_console(), show_trial(storage, study, show))
        return
    found = asked_for(space, size is not None, choice or ())
    outputs = Outputs(out, record, report, remember)
    outputs.check(found, (weights, model, data, evaluation, *(records or ())))
    view = InputOptions(image_size, mean, std, image_key, label_key, length, label)
    given = Given(model, data, evaluation, weights, pretrained, view, chosen_device(device), seed)
    network, samples_read, scored = given.read(found)
    storage = storage or (None if configuration else outputs.storage)
    with _interrupted(storage), study_bar(quiet) as progress:
        tuned = corank.tune(
            network, samples_read, space=found.space, size=size, least=least, trials=trials, tuner=tuner,
            evaluation=scored, score=found.score, storage=storage, study=study, samples=samples, selection=selection,
            rungs=(1.0,) if whole else None, patience=patience or None, latency=latency, records=records or (),
            remember=remember, seed=seed, device=given.device, reference=model,
            configuration=None if configuration is None else found.space.read(configuration),
            command=remade(command_line(context), found.suffix), progress=progress,
        )  # fmt: skip
    files = outputs.write(tuned, {"model": model or space, "command": "tune", "reproduce": command_line(context)})
    if not quiet:
        _show(tuned, [*map(str, files), *([storage] if storage else [])])


@contextmanager
def _interrupted(storage: str | None) -> Iterator[None]:
    """Says where the trials are when Ctrl-C ends the work: the same command goes on from there."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted([storage] if storage else []) from None


def _show(tuned: Tuned, written_files: list[str]) -> None:
    console = results_console()
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("trial", tuned.scored, "configuration"):
        table.add_column(Text(name), justify="left" if name == "configuration" else "right", overflow="fold")
    for trial in _worth_showing(tuned):
        style = "bold" if trial.number == tuned.best.number else ""
        table.add_row(*(Text(cell, style) for cell in (str(trial.number), shown(trial), written(trial.configuration))))
    console.print(table)
    lines = [f"best: trial {tuned.best.number} of {len(tuned.trials)}, {shown(tuned.best)}"]
    if tuned.reference is not None and tuned.reference < 100:
        lines.append(f"float: {tuned.reference:.2f}")
    if tuned.final is not None:
        final = tuned.final
        lines.append(f"on {final.samples} samples that nothing was chosen by: {final.score:.2f}")
    lines += [f"made again by: {tuned.best.command}"] if tuned.best.command else []
    show_lines(console, [*lines, *(f"wrote {path}" for path in written_files)])


def _worth_showing(tuned: Tuned) -> list[Trial]:
    """The best trials, at most ten, the best first."""
    complete = [one for one in tuned.trials if one.state == COMPLETE and one.measurement is not None]
    utilities = tuned.goal.utilities([seen for one in complete if (seen := one.measurement) is not None])
    ranked = sorted(zip(utilities, complete, strict=True), key=lambda pair: (-pair[0], pair[1].number))
    others = [one for _, one in ranked if one.number != tuned.best.number]
    return [tuned.best, *others[:9]]
