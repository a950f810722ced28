"""One self-contained page of runs: no script, and nothing is fetched when it is opened."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from corank.errors import ConfigError, DataError
from corank.reports.cells import (
    LAYER_COLUMNS,
    NOTHING,
    comparison_cells,
    comparison_columns,
    float_note,
    headline_run,
    layer_cells,
    metric_name,
    show_bits,
    show_bytes,
    show_drop,
    show_percent,
    show_ratio,
)
from corank.reports.fields import Record, clean, entries, number, run_label, text
from corank.reports.files import make_directory, write_file
from corank.reports.pictures import Picture, accuracy_picture, run_pictures

__all__ = ["write_report"]

Row = tuple[str, ...]
LONG_PLAN = 400_000


@dataclass(frozen=True)
class RunView:
    """What the page says of one run, ready to be shown."""

    label: str
    summary: str
    facts: list[tuple[str, str]]
    pictures: list[Picture]
    layers: list[Row]
    skipped: list[tuple[str, str]]
    plan: str | None
    reproduce: str | None


@dataclass(frozen=True)
class PageView:
    """What the page says of all runs, ready to be shown."""

    title: str
    subtitle: str
    cards: list[tuple[str, str, str]]
    columns: Row
    rows: list[Row]
    best: int
    note: str
    accuracy: Picture | None
    layer_columns: Row
    runs: list[RunView]


def write_report(directory: str | Path, runs: Sequence[Record], title: str = "corank report") -> Path:
    """Write `index.html`, and its pictures as PNG files beside it, into `directory`; returns the page's path.

    The page needs no other file and no network. Every text of a record is shown as text, never as markup. The
    folder is created where it is missing; files of an earlier report with the same names are replaced.

    Raises:
        DataError: `runs` is empty.
        ConfigError: matplotlib or jinja2 is not installed.
        OutputError: the folder or a file cannot be written.
    """
    if not runs:
        raise DataError(
            "a report needs at least one run, got none; write_report(directory, read_record(path)) gives it"
        )
    page = _page(runs, title)
    content = _render(page)
    directory = Path(directory)
    make_directory(directory)
    pictures = [picture for run in page.runs for picture in run.pictures]
    for picture in [*pictures, *([page.accuracy] if page.accuracy else [])]:
        write_file(directory / picture.file_name, picture.content)
    index = directory / "index.html"
    write_file(index, content.encode("utf-8"))
    return index


def _render(page: PageView) -> str:
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise ConfigError("reports need jinja2: pip install 'corank[report]'") from error
    source = files("corank.reports").joinpath("template.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source).render(page=page)


def _page(runs: Sequence[Record], title: str) -> PageView:
    best, why = headline_run(runs)
    return PageView(
        title=clean(title),
        subtitle=_subtitle(runs, best, why),
        cards=_cards(best),
        columns=comparison_columns(runs),
        rows=[comparison_cells(run) for run in runs],
        best=next(place for place, run in enumerate(runs) if run is best),
        note=float_note(runs),
        accuracy=accuracy_picture(runs),
        layer_columns=LAYER_COLUMNS,
        runs=[_run_view(run, None if len(runs) == 1 else place) for place, run in enumerate(runs)],
    )


def _subtitle(runs: Sequence[Record], best: Record, why: str) -> str:
    models = list(dict.fromkeys(name for run in runs if (name := text(run, "model")) is not None))
    subject = ", ".join(models[:3]) + (" and more" if len(models) > 3 else "")
    shown = f"{run_label(best)}, {why} of {len(runs)} runs" if why else run_label(best)
    return f"{subject} · {shown}" if subject else shown


def _cards(run: Record) -> list[tuple[str, str, str]]:
    metric = metric_name([run])
    bits, original = number(run, "equivalent_bits"), number(run, "float_bytes")
    drop = show_drop(run)
    return [
        ("float", show_percent(number(run, "float_value")), metric),
        ("quantized", show_percent(number(run, "quantized_value")), _drop_note(drop, metric)),
        (
            "file",
            show_bytes(number(run, "stored_bytes")),
            "" if bits is None else f"{bits:.3f} bits per weight",
        ),
        ("smaller", show_ratio(run), "" if original is None else f"from {show_bytes(original)}"),
    ]


def _drop_note(drop: str, metric: str) -> str:
    if drop == NOTHING:
        return metric
    return f"{drop[1:]} points gained" if drop.startswith("−") else f"{drop} points lost"


def _run_view(run: Record, place: int | None) -> RunView:
    accuracy, size = show_percent(number(run, "quantized_value")), show_bytes(number(run, "stored_bytes"))
    return RunView(
        label=run_label(run),
        summary=f"{accuracy}, {size}",
        facts=_facts(run),
        pictures=run_pictures(run, place),
        layers=[layer_cells(layer) for layer in entries(run, "layers")],
        skipped=_skipped(run),
        plan=_plan(run),
        reproduce=text(run, "reproduce", 4000),
    )


def _shown_bits(run: Record) -> str | None:
    bits = number(run, "bits")
    return None if bits is None else show_bits(bits, number(run, "activations"))


def _facts(run: Record) -> list[tuple[str, str]]:
    texts = [(name, text(run, name)) for name in ("model", "command", "version", "preset", "search")]
    budget = text(run, "budget", 60) or _shown(number(run, "budget"), "g")
    numbers = [
        ("bits", _shown_bits(run)),
        ("budget", budget),
        ("iterations", _shown(number(run, "iterations"), ".0f")),
        ("time", _shown(number(run, "seconds"), ".1f", " s")),
        ("peak memory", _shown_bytes(number(run, "peak_memory_bytes"))),
        ("seed", _shown(number(run, "seed"), ".0f")),
    ]
    return [(name, value) for name, value in [*texts, *numbers] if value is not None]


def _skipped(run: Record) -> list[tuple[str, str]]:
    skipped = run.get("skipped")
    if not isinstance(skipped, Mapping):
        return []
    return [(clean(str(name)) or "(model)", clean(str(reason), 500)) for name, reason in skipped.items()]


def _plan(run: Record) -> str | None:
    plan = run.get("plan")
    if not isinstance(plan, Mapping) or not plan:
        return None
    return clean(json.dumps(plan, indent=2, ensure_ascii=False, default=str), LONG_PLAN)


def _shown(value: float | None, form: str, unit: str = "") -> str | None:
    return None if value is None else format(value, form) + unit


def _shown_bytes(size_bytes: float | None) -> str | None:
    return None if size_bytes is None else show_bytes(size_bytes)
