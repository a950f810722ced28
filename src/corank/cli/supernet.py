"""`corank supernet`: one network that holds many; train it, look for its best subnets, take one out."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import nn

import corank
import corank.cli.options as options
import corank.cli.quantize_options as shared
import corank.cli.train_options as asked
from corank.cli.invocation import command_line
from corank.cli.outputs import Told, check_distinct, check_file, write_all
from corank.cli.progress import progress_bar
from corank.cli.screen import facts_table, results_console, show_json, show_lines
from corank.cli.sources import InputOptions, Work
from corank.cli.supernet_record import search_record, training_record
from corank.errors import ConfigError
from corank.files import write_whole
from corank.models import ResolvedModel, resolve
from corank.models.elastic import MobileSupernet
from corank.reports import write_record, write_report, write_study
from corank.reports.cells import show_bytes
from corank.storage.supernet_file import SupernetRecord
from corank.tuning.trial import Goal
from corank.verbs.subnet_search import SubnetSearch

__all__ = ["SUPERNET_COMMANDS"]

Files = Annotated[list[Path], typer.Argument(help="Written by corank supernet train: one for each bit width.")]
File = Annotated[Path, typer.Argument(help="Written by corank supernet train.")]
Network = Annotated[
    str | None,
    typer.Option("--model", help="The network's code, file.py:factory; a file of an elastic: network needs none."),
]
Bits = Annotated[
    int | None, typer.Option(help="Of weights and inputs, 2 to 8; float if not given.", rich_help_panel=asked.HOW)
]
Samples = Annotated[
    int | None,
    typer.Option(help="That batch statistics are estimated on, at most (512).", rich_help_panel=options.INPUT),
]
Json = Annotated[Path | None, typer.Option("--out", metavar="FILE.json", help="Write every trial as JSON.")]


def train(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="elastic:CLASSES, file.py:factory, or a supernet's .safetensors.")],
    data: options.Data,
    out: shared.Out,
    view: InputOptions,
    work: Work,
    told: Told,
    bits: Bits = None,
    iterations: asked.Iterations = None,
    batch_size: asked.BatchSize = None,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Negative inputs become zero, as the authors have it.")
    ] = False,
    network: Network = None,
    samples: Samples = None,
    workers: asked.Workers = None,
    checkpoint: shared.Checkpoint = None,
) -> None:
    """Train a supernet in float, at 4 bits from it, and on to 3 and 2 from that of one bit more."""
    check_file(out, "--out", ".safetensors")
    check_distinct((out, told.record, told.report), (model, data))
    told.checked()
    source = _opened(model, network, work.seed)
    images = view.read(source, data)[0]
    with progress_bar(told.quiet) as progress:
        net = corank.train_supernet(
            source.model, images, bits, iterations=400 if iterations is None else iterations,
            batch_size=128 if batch_size is None else batch_size, signed=not unsigned, samples=samples,
            workers=workers, seed=work.seed, device=work.place, checkpoint=checkpoint, progress=progress,
        )  # fmt: skip
    done = training_record(net, model, command_line(context))
    written = write_all(
        (out, lambda path: corank.save_supernet(net, path)),
        (told.record, lambda path: write_record(path, done)),
        (told.report, lambda path: write_report(path, [done], f"{model}, {done['label']}")),
    )
    if not told.quiet:
        _show_training(net)
        show_lines(results_console(), [f"wrote {path}" for path in written])


def search(
    context: typer.Context,
    files: Files,
    data: options.Data,
    view: InputOptions,
    told: Told,
    evaluation: Annotated[str, typer.Option("--eval", help="To score on, as --data.", rich_help_panel=options.INPUT)],
    trials: Annotated[int, typer.Option(help="Subnets to score.")] = 60,
    size: Annotated[str | None, typer.Option(help="Of the file, at most, such as 20KB.")] = None,
    multiply_adds: Annotated[int | None, typer.Option(help="Of one image, at most.")] = None,
    by: Annotated[
        str, typer.Option(help="What accuracy is weighed against: size_bytes or multiply_adds.")
    ] = "size_bytes",
    out: Json = None,
    network: Network = None,
    samples: Samples = None,
    checkpoint: shared.Checkpoint = None,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Try subnets, and list those that are worth their bytes; keep other samples for the number that you tell."""
    check_file(out, "--out", ".json")
    check_distinct((out, told.record, told.report), (*files, data, evaluation))
    told.checked()
    sources = [_opened(str(file), network, seed) for file in files]
    images, scored = view.read(sources[0], data, evaluation)
    with progress_bar(told.quiet) as progress:
        found = corank.search_subnets(
            [one.model for one in sources], images, scored, trials=trials, size=size, by=by,
            multiply_adds=multiply_adds, samples=samples, seed=seed, checkpoint=checkpoint,
            progress=progress,
        )  # fmt: skip
    done = {"by": by, "front": [asdict(one) for one in found.front], "trials": [asdict(one) for one in found.trials]}
    more = {"--data": data, "--model": network, "--samples": samples, **view.typed}
    named = {_record_of(one.model).bits or 0: file for one, file in zip(sources, files, strict=True)}
    study = search_record(found, named, Goal(size), command_line(context), more) | {"model": sources[0].reference}
    written = write_all(
        (out, lambda path: write_whole(path, json.dumps(done, indent=1).encode() + b"\n")),
        (told.record, lambda path: write_record(path, study)),
        (told.report, lambda path: write_study(path, study, "corank supernet search")),
    )
    if as_json:
        show_json(done)
    elif not told.quiet:
        console = results_console()
        console.print(_front_table(found))
        show_lines(console, [f"wrote {path}" for path in written])


def extract(
    context: typer.Context,
    file: File,
    data: options.Data,
    out: shared.Out,
    view: InputOptions,
    subnet: Annotated[
        str | None,
        typer.Option(
            help="Its name, as corank supernet search gives it, or CHOICE=NUMBER,...; the largest if not given."
        ),
    ] = None,
    coder: shared.Coder = "auto",
    network: Network = None,
    samples: Samples = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Take one subnet out: an ordinary file, which every other command reads."""
    check_file(out, "--out", ".safetensors")
    check_distinct((out,), (file, data))
    source = _opened(str(file), network, seed)
    images = view.read(source, data)[0]
    if _record_of(source.model).bits is None:
        raise ConfigError(f"{file} is in float; train it at some bits first: corank supernet train {file} --bits 4 ...")
    made = corank.extract_subnet(source.model, images, _chosen(source.model, subnet), samples=samples)
    written = write_all((out, lambda path: corank.save(made, path, coder)))
    if not quiet:
        record, console = made.__dict__["corank_run"], results_console()
        facts: dict[str, Any] = {"model": record.model, "bits": record.bits, "size": show_bytes(out.stat().st_size)}
        console.print(facts_table({name: str(value) for name, value in facts.items() if value is not None}))
        show_lines(console, [f"wrote {path}" for path in written])


def _record_of(model: nn.Module) -> SupernetRecord:
    return model.__dict__["corank_supernet"]


def _show_training(net: nn.Module) -> None:
    record = _record_of(net)
    last = record.history[-1]["largest"] if record.history else None
    facts = {
        "bits": "float" if record.bits is None else str(record.bits),
        "began from": "float" if record.inherited is None else f"{record.inherited} bits, steps doubled",
        "steps": str(record.iterations),
        "loss of the largest": None if last is None else f"{last:.3f}",
        "seconds": f"{record.seconds:.1f}",
    }
    results_console().print(facts_table({name: value for name, value in facts.items() if value is not None}))


SUPERNET_COMMANDS = (train, search, extract)


def _opened(given: str, network: str | None, seed: int) -> ResolvedModel:
    """The supernet of a file, or one that is made."""
    if not given.lower().endswith(".safetensors"):
        return resolve(given, seed=seed)
    code = None if network is None else resolve(network, seed=seed)
    net = corank.load_supernet(given, None if code is None else code.model)
    if code is None:
        assert isinstance(net, MobileSupernet)
        code = resolve(net.shape.reference)
    return replace(code, model=net, random=False)


def _chosen(model: nn.Module, subnet: str | None) -> dict[str, int] | None:
    if subnet is None:
        return None
    if subnet.startswith("elastic:"):
        if not isinstance(model, MobileSupernet):
            raise ConfigError(f"--subnet {subnet[:80]}: this is no elastic: network; give CHOICE=NUMBER,...")
        return model.chosen_by(subnet)
    found: dict[str, int] = {}
    for part in subnet.split(","):
        name, _, value = part.partition("=")
        if not value.isdigit():
            raise ConfigError(f"--subnet {part[:80]}: CHOICE=NUMBER with commas between, e.g. resolution=32")
        found[name] = int(value)
    return found


def _front_table(found: SubnetSearch) -> Table:
    table = Table(box=SIMPLE_HEAD)
    for name in ("bits", "score, %", "size", "multiply-adds", "subnet"):
        table.add_column(name, justify="left" if name == "subnet" else "right", overflow="fold")
    for one in found.front:
        named = one.reference or ",".join(f"{name}={value}" for name, value in one.chosen.items())
        table.add_row(str(one.bits), f"{one.score:.2f}", show_bytes(one.size_bytes), f"{one.multiply_adds:,}", named)
    return table
