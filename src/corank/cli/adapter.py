"""A task's adapter on the command line: put on its base, and what it holds in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

import corank
import corank.cli.options as options
from corank.cli.sources import own_dtype
from corank.models import ResolvedModel
from corank.reports.cells import show_bytes

__all__ = ["AdapterFile", "adapter_facts", "in_two_files", "loaded"]

AdapterFile = Annotated[
    Path | None,
    typer.Option("--adapter", metavar="FILE", help="A task's, written by corank adapt.", rich_help_panel=options.MODEL),
]


def loaded(
    file: Path, source: ResolvedModel, where: torch.device, adapter: Path | None, packed: bool = False
) -> nn.Module:
    """The network of a file, with a task's adapter where there is one."""
    dtype = own_dtype(source.model)
    if adapter is None:
        return corank.load(file, source.model, where, dtype=dtype, packed=packed)
    found = corank.load_adapter(corank.load(file, source.model, where, dtype=dtype), adapter)
    return corank.to_packed(found) if packed else found


def in_two_files(both: Mapping[str, Any], base: Path, adapter: Path) -> dict[str, Any]:
    """What :func:`corank.inspect` says of a base with its adapter, with the bytes that the two files take."""
    own, added = corank.inspect(base), adapter.stat().st_size
    parts = {**own["stored_parts"], "adapter": own["stored_parts"].get("adapter", 0) + added}
    return {**both, "stored_bytes": own["stored_bytes"] + added, "stored_parts": parts}


def adapter_facts(about: Mapping[str, Any], size: int) -> dict[str, str]:
    """What an adapter holds, from :meth:`corank.storage.task_adapter.TaskAdapter.about`."""
    ranks, vectors, head = about["ranks"].values(), about["vectors"], about["head"]
    bits = " and ".join(map(str, about["bits"]))
    shown = f"rank {max(ranks)}" if len(set(ranks)) == 1 else f"ranks {min(ranks)} to {max(ranks)}" if ranks else ""
    found = {
        "a task's adapter": f"{show_bytes(size)}, SHA-256 sound",
        "of the base": f"with the codes {about['base'][:12]}...",
        "factors": f"{len(ranks)} layers, {shown}, of {bits} bits: "
        f"{show_bytes(about['factor_bytes'])}" if ranks else "none",
        "biases and norms": f"{len(vectors)}, {show_bytes(2 * sum(vectors.values()))}" if vectors else "the base's",
        "last layer": "the base's" if head is None else f"{head['name']!r} of its own, {head['shape'][0]} classes",
        "gradient steps": str(about["iterations"]),
    }  # fmt: skip
    return found
