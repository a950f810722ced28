"""`corank compare`: every codec and rounder on one network, in a table and a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

import corank.cli.options as options
from corank.cli.outputs import check_report
from corank.cli.progress import progress_bar
from corank.cli.screen import results_console, show_lines
from corank.cli.sources import InputOptions, ModelOptions, Work
from corank.errors import ConfigError
from corank.files import make_directory, write_whole
from corank.reports.cells import show_bytes
from corank.reports.plots.codecs import draw_codecs
from corank.reports.plots.style import image_bytes
from corank.verbs.compare import Comparison, cases
from corank.verbs.compare import compare as run_comparison

__all__ = ["compare", "comparison_markdown"]

Number = TypeVar("Number", int, float)

SCORES = {"nats": ("nats per token", "{:.3f}"), "top1": ("top-1", "{:.1f}")}


def compare(
    context: typer.Context,
    model: options.Model,
    data: options.Data,
    network: ModelOptions,
    view: InputOptions,
    work: Work,
    evaluation: Annotated[
        str, typer.Option("--eval", help="Images to score on, as --data.", rich_help_panel=options.INPUT)
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Results, table and picture; what is there is not run again."),
    ],
    bits: Annotated[str, typer.Option(help="Widths of a code.")] = "4,3,2",
    codecs: Annotated[str | None, typer.Option(help="Names with commas between; all if not given.")] = None,
    rounders: Annotated[str, typer.Option(help="Names with commas between.")] = "nearest,gptq",
    adapters: Annotated[str, typer.Option(help="Extra bits a weight, with commas between.")] = "0,0.25",
    search: Annotated[str, typer.Option(help="Of the adapters' ranks.")] = "greedy",
    jobs: Annotated[int, typer.Option(help="Cases at the same time, if memory allows.")] = 1,
    samples: Annotated[int, typer.Option(help="Calibration images, at most.", rich_help_panel=options.INPUT)] = 512,
    quiet: options.Quiet = False,
) -> None:
    """Compare codecs and rounders on one network, with and without adapters."""
    names = None if codecs is None else codecs.split(",")
    wanted = cases(names, rounders.split(","), _numbers("--bits", bits, int), _numbers("--adapters", adapters, float))
    check_report(out)
    source = network.resolve(model, work.seed)
    images, scored = view.read(source, data, evaluation)
    make_directory(out)
    with progress_bar(quiet) as progress:
        found = run_comparison(
            source.model.to(work.place), images, scored, wanted, samples=samples, search=search, seed=work.seed,
            device=work.place, out=out / "compare.json", jobs=jobs, progress=progress,
        )  # fmt: skip
    write_whole(out / "compare.md", comparison_markdown(found).encode())
    drawn = [one for one in found.results.values() if "error" not in one]
    if drawn:
        write_whole(out / "compare.png", image_bytes(draw_codecs(drawn, found.float_scores)))
    if not quiet:
        console = results_console()
        console.print(_table(found))
        show_lines(console, [f"wrote compare.json, compare.md{', compare.png' if drawn else ''} in {out}"])


def comparison_markdown(found: Comparison) -> str:
    """The comparison as a Markdown table, the float network first."""
    columns = _columns(found)
    lines = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    lines += ["| " + " | ".join(cells) + " |" for cells in _rows(found)]
    return "\n".join(lines) + "\n"


def _table(found: Comparison) -> Table:
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for place, name in enumerate(_columns(found)):
        table.add_column(Text(name), justify="right" if place else "left", overflow="fold")
    for cells in _rows(found):
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _columns(found: Comparison) -> list[str]:
    return ["case", "equivalent bits", "file", SCORES[_score(found)][0], "as float", "KL", "s"]


def _score(found: Comparison) -> str:
    """What tells most of the network: the loss of a language model, else the share of right classes."""
    return "nats" if "nats" in found.float_scores else "top1"


def _rows(found: Comparison) -> list[list[str]]:
    score = _score(found)
    form = SCORES[score][1]
    rows = [["float", "32", "–", _of(found.float_scores.get(score), form), "100.0", "0", "–"]]
    for label, one in found.results.items():
        if "error" in one:
            rows.append([f"{label}: {one['error']}", *["–"] * 6])
            continue
        scores = [_of(one.get(score), form), _of(one.get("agreement"), "{:.1f}"), _of(one.get("kl"), "{:.3f}")]
        size = show_bytes(one["stored_bytes"])
        rows.append([label, f"{one['equivalent_bits']:.2f}", size, *scores, f"{one['seconds']:.0f}"])
    return rows


def _of(value: Any, form: str) -> str:
    return "–" if value is None else form.format(value)


def _numbers(option: str, text: str, kind: Callable[[str], Number]) -> list[Number]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"{option} {text}: numbers with commas between, e.g. {option} 4,3,2") from error
