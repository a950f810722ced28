"""`corank pack`: images into shards, which are read in place and one after the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

import corank.cli.options as options
from corank.cli.outputs import check_kind
from corank.cli.progress import progress_bar
from corank.cli.screen import facts_table, results_console, show_lines
from corank.data import BatchSet, ImageSet, Preprocessing, TokenSet, load_samples
from corank.data.records import pack as packed
from corank.errors import ConfigError, DataError
from corank.models import resolve
from corank.reports.cells import show_bytes
from corank.sizes import parse_size

__all__ = ["pack"]


def pack(
    context: typer.Context,
    data: Annotated[str, typer.Argument(help="A folder, .zip, .npz, shards or file.py:function; a slice may follow.")],
    out: Annotated[Path, typer.Option("--out", help="A new folder for the shards.", rich_help_panel=options.OUTPUT)],
    decoded: Annotated[
        bool, typer.Option("--decoded", help="Store pixels instead of files: larger, read without decoding.")
    ] = False,
    image_size: Annotated[int | None, typer.Option(help="With --decoded: side in pixels to resize to.")] = None,
    model: Annotated[
        str | None, typer.Option(help="With --decoded: resize as this network reads images, e.g. timm:NAME.")
    ] = None,
    shard_size: Annotated[str, typer.Option(help="Of a shard, at most.")] = "256MB",
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Mix the samples by the seed: for shards by URL.")] = False,
    seed: options.Seed = 0,
    image_key: options.ImageKey = None,
    label_key: options.LabelKey = None,
    as_json: Annotated[bool, typer.Option("--json", help="What was written as JSON on stdout.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Pack images into shards: tar files with an index, which every --data reads, from a folder or by URL."""
    check_kind("--out", out)
    if not decoded and (image_size is not None or model is not None):
        raise ConfigError("--image-size and --model resize pixels, and files are packed as they are; add --decoded")
    if image_size is not None and model is not None:
        raise ConfigError("--image-size and --model were given; choose one: each says how images are resized")
    shard_bytes = parse_size(shard_size)
    how = None if image_size is None else Preprocessing(image_size=image_size)
    if model is not None:
        how = resolve(model).preprocessing
    images = load_samples(data, how, image_key=image_key, label_key=label_key)
    with progress_bar(quiet) as progress:
        made = packed(
            _of_images(images, data), out, decoded=decoded, shard_bytes=shard_bytes, shuffle=seed if shuffle else None,
            progress=progress,
        )  # fmt: skip
    if as_json:
        facts = {"samples": made.samples, "shards": made.shards, "bytes": made.size_bytes, "folder": str(made.folder)}
        typer.echo(json.dumps(facts, indent=2))
    elif not quiet:
        console = results_console()
        facts = {"images": str(made.samples), "shards": str(made.shards), "size": show_bytes(made.size_bytes)}
        console.print(facts_table(facts))
        show_lines(console, [f"wrote {made.folder}"])


def _of_images(found: ImageSet | TokenSet | BatchSet, data: str) -> ImageSet:
    if isinstance(found, ImageSet):
        return found
    kind = "token ids" if isinstance(found, TokenSet) else "batches"
    raise DataError(f"{data} gives {kind}, and shards hold images; --data reads {kind} as they are")
