"""What the training scripts beside this file share: a case, its run, runs that are kept, and the table of them."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

import corank
from corank.codecs import RateUniform
from corank.training.recipe import Optimizer, Recipe, Schedule
from corank.training.recipes import RECIPES, chosen_recipe

__all__ = [
    "YARDSTICKS",
    "Case",
    "Kept",
    "bits_of",
    "markdown",
    "named",
    "options_of",
    "run_all",
    "run_case",
    "yardstick",
]

_FLOAT = Recipe(weights=None, edge=None, edge_inputs=None, start="float")
YARDSTICKS: dict[str, Recipe] = {
    "float": _FLOAT,
    "float, labels": _FLOAT.replaced(loss="labels", optimizer=Optimizer(rate=5e-4)),
    "float, scratch": _FLOAT.replaced(
        loss="labels",
        start="scratch",
        optimizer=Optimizer("sgd", rate=0.1, decay=1e-4),
        schedule=Schedule("cosine", warm=0.0),
    ),
}
"""The float network given the same steps, data and loss: what a low-bit network is compared with."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One row of a table.

    Attributes:
        recipe: its name, or the recipe; None for ``corank.quantize`` alone.
        given: further arguments of ``corank.train`` or ``corank.quantize``.
        widths: of a recipe that ends in a float network: bits that ``corank.quantize`` then codes it with.
    """

    recipe: str | Recipe | None
    given: Mapping[str, Any] = field(default_factory=dict)
    widths: tuple[int, ...] = ()


def yardstick(recipe: Recipe) -> str:
    """The name of the float row that a recipe is compared with."""
    if recipe.start == "scratch":
        return "float, scratch"
    return "float" if recipe.loss == "distil" else "float, labels"


def bits_of(recipe: Recipe) -> str:
    """Bits of weights, and of inputs where they are not float: "2", "W4A4"."""
    stored = None if recipe.weights is None else recipe.weights.stored
    if stored is None:
        return "32"
    if isinstance(stored, RateUniform):
        return "coded"
    return f"{stored.bits}" if recipe.inputs is None else f"W{stored.bits}A{recipe.inputs.bits}"


def named(methods: Mapping[str, Sequence[str]]) -> dict[str, Case]:
    """Cases of methods and their bits, "2bit" or "w4a4"; of those methods that there are."""
    names = [f"{method}-{bits}" for method, widths in methods.items() if method in RECIPES for bits in widths]
    return {name: Case(name) for name in names}


class Kept:
    """Records by name, in a file that is written whole after each.

    Args:
        path: of the JSON file; what it holds is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.records: dict[str, Record] = json.loads(path.read_text()) if path.exists() else {}

    def __contains__(self, name: str) -> bool:
        return name in self.records

    def put(self, name: str, record: Record) -> None:
        """Keeps a record."""
        self.records[name] = record
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(self._path.name + ".partial")
        partial.write_text(json.dumps(self.records, indent=1) + "\n")
        os.replace(partial, self._path)


@dataclass
class _Clock:
    """Seconds between steps, as the verb's progress tells them."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def __call__(self, what: str, done: int, total: int) -> None:
        if what.startswith("training"):
            self.wall.append(time.perf_counter())
            self.cpu.append(time.process_time())

    def a_step(self) -> Record:
        """Medians, of wall time and of the process's; nothing before two steps are done."""
        if len(self.wall) < 2:
            return {}
        pairs = (("seconds_a_step", self.wall), ("cpu_seconds_a_step", self.cpu))
        gaps = {name: [b - a for a, b in pairwise(times)] for name, times in pairs}
        return {name: round(statistics.median(found), 4) for name, found in gaps.items()}


def run_case(
    case: Case, model: nn.Module, data: Any, score: Callable[[nn.Module], Record], given: Mapping[str, Any]
) -> Record:
    """Trains, scores, stores: the record of one run.

    Args:
        case: what is run.
        model: the float network.
        data: as for ``corank.train``.
        score: of a network, such as ``{"top1": 81.0, "agreement": 95.0}``.
        given: further arguments of ``corank.train``: seed, iterations, batch_size, ...
    """
    clock, started, used = _Clock(), time.perf_counter(), time.process_time()
    if case.recipe is None:
        own = {name: given[name] for name in ("seed", "device") if name in given}
        return {
            "yardstick": "float",
            **_scored(corank.quantize(model, data, **{"budget": 0.0, **own, **case.given}), score),
            "seconds": round(time.perf_counter() - started, 1),
            "cpu_seconds": round(time.process_time() - used, 1),
        }
    recipe = chosen_recipe(case.recipe)
    trained = corank.train(model, data, recipe, progress=clock, **{**given, **case.given})
    record: Record = {
        "bits": bits_of(recipe),
        "yardstick": yardstick(recipe),
        "bytes": float_bytes(trained) if bits_of(recipe) == "32" else file_bytes(trained),
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
        **clock.a_step(),
        **score(trained),
    }
    if case.widths:
        record["quantized"] = {str(bits): _quantized(trained, data, bits, given, score) for bits in case.widths}
    return record


def float_bytes(model: nn.Module) -> int:
    """Of a network's numbers as they are."""
    return sum(one.numel() * one.element_size() for one in model.state_dict().values() if one.is_floating_point())


def file_bytes(model: nn.Module) -> int:
    """Of the file of a coded network."""
    with tempfile.TemporaryDirectory() as folder:
        return corank.save(model, Path(folder) / "model.safetensors", coder="auto")


def _quantized(
    model: nn.Module, data: Any, bits: int, given: Mapping[str, Any], score: Callable[..., Record]
) -> Record:
    """What ``quantize`` alone makes of a float network."""
    return _scored(corank.quantize(model, data, bits=bits, budget=0.0, seed=given.get("seed", 0)), score)


def _scored(small: nn.Module, score: Callable[[nn.Module], Record]) -> Record:
    return {"bits": f"{corank.inspect(small)['bits']:g}", "bytes": file_bytes(small), **score(small)}


def options_of(description: str, out: str) -> argparse.ArgumentParser:
    """The options that all scripts have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--shared", type=Path, help="folder of real data and trained weights")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", action="append", metavar="PATTERN", help="of cases, such as 'lsq-*'; repeatable")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(out), help="finished runs are kept there and not run again")
    parser.add_argument(
        "--table", action="store_true", help="print the table of what --out and --add hold; run nothing"
    )
    parser.add_argument("--add", type=Path, action="append", default=[], help="further results for the table")
    parser.add_argument(
        "--part", default="1/1", help="of the cases, such as 2/4: for several processes, each its --out"
    )
    parser.add_argument("--list", action="store_true", help="print the cases")
    return parser


def run_all(
    options: argparse.Namespace, cases: Mapping[str, Case], group: str, runner: Callable[[Case, int], Record]
) -> None:
    """Runs what is asked and not done; or prints the table, or the cases.

    Args:
        options: of :func:`options_of`.
        cases: by name; the float rows stand first.
        group: of the runs, such as "resnet20, 400 x 128": results of several may stand in one file.
        runner: a case and a seed to its record.
    """
    wanted = [name for name in cases if any(fnmatchcase(name, one) for one in options.only or ["*"])]
    if options.list:
        print("\n".join(wanted))
        return
    if options.table:
        found: dict[str, Record] = {}
        for path in (options.out, *options.add):
            found |= Kept(path).records
        print(markdown(found, list(cases)))
        return
    if not wanted:
        raise SystemExit(f"no case is called {options.only}; --list prints them")
    if options.shared is None:
        raise SystemExit("--shared DIR: the folder of real data and trained weights")
    torch.set_num_threads(options.threads)
    part, parts = (int(one) for one in options.part.split("/"))
    kept, failed = Kept(options.out), []
    keys = [
        (f"{group}/{name}/{seed}", name, seed) for seed in range(options.seeds) for name in wanted[part - 1 :: parts]
    ]
    for key, name, seed in keys:
        if key in kept:
            continue
        try:
            kept.put(key, runner(cases[name], seed))
        except corank.CorankError as error:  # the others are run still
            failed.append(f"{key}: {error}")
            continue
        print(f"{key:<48} {said(kept.records[key])}", flush=True)
    if failed:
        raise SystemExit("\n".join(["failed:", *failed]))


def said(record: Record) -> str:
    """A record in a line."""
    main = f"{record['nats']:.4f} nats" if "nats" in record else f"{record['top1']:.2f}"
    return f"{main} in {record['bytes']} bytes, {record.get('seconds_a_step', 0):.3f} s a step"


def markdown(records: Mapping[str, Record], order: Iterable[str] = ()) -> str:
    """The tables of all groups of runs: one row a case, means over seeds and their spread (standard deviation).

    A gap is the mean over the seeds that both rows have. Cases stand in the order given, others behind them.
    """
    groups: dict[str, dict[str, dict[str, Record]]] = {}
    for key, record in records.items():
        group, name, seed = key.split("/")
        groups.setdefault(group, {}).setdefault(name, {})[seed] = record
    place = {name: number for number, name in enumerate(order)}
    parts: list[str] = []
    for group, rows in groups.items():
        names = sorted(rows, key=lambda name: (name not in YARDSTICKS, place.get(name, len(place))))
        measure = "nats" if any("nats" in one for runs in rows.values() for one in runs.values()) else "top1"
        parts += [f"**{group}**", ""]
        title = "Nats a token" if measure == "nats" else "Top-1"
        parts.append(f"| Method | Bits | {title} | To float | As float | Bytes | s a step | Seeds |")
        parts.append("|---|---|---:|---:|---:|---:|---:|---:|")
        parts += [_row(name, rows[name], rows, measure) for name in names]
        parts.append("")
        parts += _curves({name: rows[name] for name in names if any("quantized" in one for one in rows[name].values())})
    return "\n".join(parts)


def _row(name: str, runs: Mapping[str, Record], rows: Mapping[str, Mapping[str, Record]], measure: str) -> str:
    first = next(iter(runs.values()))
    digits = 3 if measure == "nats" else 2
    compared = rows.get(first.get("yardstick", ""), {})
    gaps = [runs[seed][measure] - compared[seed][measure] for seed in runs if seed in compared]
    gap = f"{statistics.mean(gaps):+.{digits}f}" if gaps and name != first["yardstick"] else ""
    scores = [one[measure] for one in runs.values()]
    spread = f" ± {statistics.stdev(scores):.{digits}f}" if len(scores) > 1 else ""
    agreement, seconds = _mean(runs, "agreement"), _mean(runs, "seconds_a_step")
    return (
        f"| {name} | {first['bits']} | {statistics.mean(scores):.{digits}f}{spread} | {gap} "
        f"| {'' if agreement is None else f'{agreement:.1f}'} | {round(_mean(runs, 'bytes') or 0):,} "
        f"| {'' if seconds is None else f'{seconds:.3f}'} | {len(runs)} |"
    )


def _mean(runs: Mapping[str, Record], what: str) -> float | None:
    found = [one[what] for one in runs.values() if one.get(what) is not None]
    return statistics.mean(found) if found else None


def _curves(rows: Mapping[str, Mapping[str, Record]]) -> list[str]:
    """Of networks that end in float: what ``quantize`` alone makes of them."""
    widths = sorted({int(w) for runs in rows.values() for one in runs.values() for w in one["quantized"]}, reverse=True)
    if not widths:
        return []
    lines = [
        "Coded by `quantize` afterwards, without training:",
        "",
        "| Method | float " + "".join(f"| {w} bits " for w in widths) + "|",
    ]
    lines.append("|---|---:" + "|---:" * len(widths) + "|")
    for name, runs in rows.items():
        cells = [f"{_mean(runs, 'top1'):.2f}"]
        for width in widths:
            found = [one["quantized"][str(width)]["top1"] for one in runs.values() if str(width) in one["quantized"]]
            cells.append(f"{statistics.mean(found):.2f}" if found else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]
