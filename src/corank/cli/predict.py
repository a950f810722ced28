"""`corank predict`: what a quantized file says of images or recordings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from torch import Tensor

import corank
import corank.cli.options as options
from corank.cli.adapter import AdapterFile, loaded
from corank.cli.screen import results_console
from corank.cli.sources import InputOptions, chosen_device
from corank.data import ImageSet
from corank.data.archive import ArchiveSource
from corank.data.folder import FolderSource
from corank.data.recordings import RecordingSource
from corank.errors import ConfigError
from corank.evaluation import probabilities
from corank.files import read_at_most
from corank.models import resolve
from corank.reports.fields import clean

__all__ = ["predict"]

BATCH = 32
LARGEST_NAMES = 1_000_000  # bytes


@dataclass(frozen=True)
class Guess:
    """A class, its index, and how likely it is, 0 to 1."""

    name: str
    index: int
    probability: float


def predict(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Written by corank quantize or train.")],
    samples: Annotated[
        list[str],
        typer.Argument(metavar="SAMPLE...", help="Images or recordings: files, folders, .zip; a slice may follow."),
    ],
    model: options.ModelOption,
    view: InputOptions,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C|FILE",
            help="Names of the classes by index: with commas, or a text file, one a line; if not given, those of a "
            "sample's class folders or names.",
            rich_help_panel=options.INPUT,
        ),
    ] = None,
    adapter: AdapterFile = None,
    top: Annotated[int, typer.Option(min=1, help="Classes shown of each sample, the likeliest first.")] = 3,
    device: options.Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout, instead of a table.")] = False,
) -> None:
    """Print the classes of images or recordings, with their probabilities.

    MODEL gives the network's code; what the file says of its origin is never run.
    """
    names = None if classes is None else _names(classes)
    where = chosen_device(device)
    source = resolve(model, seed=corank.inspect(file)["seed"])
    given = [(reference, one) for reference in samples for one in view.read(source, reference)]
    network = loaded(file, source, where, adapter)
    found: list[tuple[str, list[Guess]]] = []
    for reference, one in given:
        if not isinstance(one, ImageSet):
            raise ConfigError(f"{reference} gives a {type(one).__name__}; predict takes images and recordings")
        chances = probabilities(network, (batch for batch, _ in one.batches(BATCH)), where)
        if names is not None and len(names) != chances.shape[1]:
            raise ConfigError(f"--classes gives {len(names)} names, and the network has {chances.shape[1]} classes")
        own = names or one.class_names
        called = own if own is not None and len(own) == chances.shape[1] else None
        likely = [_likeliest(row, called, top) for row in chances]
        found += zip(_sample_names(reference, one), likely, strict=True)
    if as_json:
        said = [{"sample": name, "classes": [asdict(guess) for guess in guesses]} for name, guesses in found]
        typer.echo(json.dumps(said, indent=2))
    else:
        _show(found)


def _names(classes: str) -> list[str]:
    path = Path(classes)
    try:
        is_file = path.is_file()
    except OSError:  # too long for a name
        is_file = False
    if is_file:
        try:
            return [line.strip() for line in read_at_most(path, LARGEST_NAMES).decode().splitlines() if line.strip()]
        except ValueError as error:
            raise ConfigError(f"--classes {path}: it is no text file of at most 1 MB, one name a line") from error
    return [one.strip() for one in classes.split(",")]


def _sample_names(reference: str, samples: ImageSet) -> list[str]:
    """Files by name; other samples by their place."""
    source = samples.source
    files = source.files if isinstance(source, RecordingSource) else source
    places = range(len(source)) if samples.indices is None else samples.indices.tolist()
    if isinstance(files, (FolderSource, ArchiveSource)):
        single = Path(reference).is_file() and isinstance(files, FolderSource)
        return [reference if single else files.names[place] for place in places]
    return [f"{reference}[{place}]" for place in places]


def _likeliest(row: Tensor, names: Sequence[str] | None, top: int) -> list[Guess]:
    chances, indices = torch.topk(row, min(top, len(row)))
    return [
        Guess(names[int(index)] if names else str(index), int(index), round(float(chance), 6))
        for chance, index in zip(chances.tolist(), indices.tolist(), strict=True)
    ]


def _show(found: Sequence[tuple[str, Sequence[Guess]]]) -> None:
    table = Table(box=SIMPLE_HEAD, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("sample", overflow="fold")
    table.add_column("class")
    table.add_column("probability", justify="right")
    table.add_column("then", overflow="fold")
    for sample, (first, *others) in found:
        then = ", ".join(f"{clean(one.name)} {_percent(one)}" for one in others)
        cells = (clean(sample, 300), clean(first.name), _percent(first), then)
        table.add_row(*map(Text, cells))
    results_console().print(table)


def _percent(guess: Guess) -> str:
    return f"{100 * guess.probability:.1f} %"
