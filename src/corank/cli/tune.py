"""`corank tune`: a network and samples in, the best of many ways to make it small out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

import corank
import corank.cli.quantize_options as shared
import corank.cli.tune_options as asked
from corank.cli.errors import Interrupted
from corank.cli.invocation import command_line
from corank.cli.outputs import Told
from corank.cli.progress import study_bar
from corank.cli.screen import results_console, show_lines
from corank.cli.sources import InputOptions, ModelOptions, Work
from corank.cli.tuning_request import Given, Outputs, asked_for, remade, show_trial
from corank.tuning.space import written
from corank.tuning.study import shown
from corank.tuning.trial import COMPLETE, Trial
from corank.verbs.tune import Tuned

__all__ = ["tune"]


def tune(
    context: typer.Context,
    request: asked.TuneOptions,
    network: ModelOptions,
    view: InputOptions,
    work: Work,
    told: Told,
    model: asked.Model = None,
    data: asked.Data = None,
    out: asked.Out = None,
    evaluation: shared.Evaluation = None,
    show: asked.Show = None,
) -> None:
    """Choose settings by trials, each recorded, and make the best file."""
    if show is not None:
        show_lines(results_console(), show_trial(request.storage, request.study, show))
        return
    found = asked_for(request.space, request.size is not None, request.choice or ())
    outputs = Outputs(out, request.remember, told)
    outputs.check(found, (network.weights, model, data, evaluation, *(request.records or ())))
    read, samples, scored = Given(model, data, evaluation, network, view).read(found, work)
    storage = request.storage or (None if request.configuration else outputs.storage)
    configuration = request.configuration
    with _interrupted(storage), study_bar(told.quiet) as progress:
        tuned = corank.tune(
            read, samples, **request.settings, space=found.space, evaluation=scored, score=found.score,
            storage=storage, seed=work.seed, device=work.place, reference=model,
            configuration=None if configuration is None else found.space.read(configuration),
            command=remade(command_line(context), found.suffix), progress=progress,
        )  # fmt: skip
    about = {"model": model or request.space, "command": "tune", "reproduce": command_line(context)}
    files = outputs.write(tuned, about)
    if not told.quiet:
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
