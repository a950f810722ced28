"""What the page says, ready to be shown: texts, tables and pictures, taken from records without trusting them."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

from corank.reports.analyses import AnalysisView, is_compared, is_told, shown
from corank.reports.cells import (
    LAYER_COLUMNS,
    NOTHING,
    comparison_cells,
    comparison_columns,
    float_note,
    headline_run,
    is_nats,
    layer_cells,
    metric_name,
    show_bits,
    show_bytes,
    show_loss,
    show_percent,
    show_ratio,
    show_value,
)
from corank.reports.fields import (
    Record,
    clean,
    entries,
    file_bits,
    is_rated,
    layer_name,
    number,
    numbers,
    run_label,
    text,
)
from corank.reports.pictures import Picture, accuracy_picture, analysis_pictures, run_pictures
from corank.reports.plots.errors import fragile_layers

__all__ = ["PageView", "RunView", "page_of"]

Row = tuple[str, ...]
LONG_PLAN = 400_000
MOST_FRAGILE = 6
MOST_FLOATS = 8
FRAGILE_COLUMNS = ("layer", "output error", "of the median", "bits", "option for more bits", "adds at most")


@dataclass(frozen=True)
class RunView:
    """What the page says of one run; ``id`` is its own in the page, empty where nothing points to it."""

    label: str
    summary: str
    facts: list[tuple[str, str]]
    pictures: list[Picture]
    fragile: list[Row]
    layers: list[Row]
    skipped: list[tuple[str, str]]
    floats: list[Row]
    plan: str | None
    reproduce: str | None
    analysis: AnalysisView | None = None
    id: str = ""


@dataclass(frozen=True)
class PageView:
    """What the page says of all runs; ``best`` is the row, and ``first`` the place among all, of the one on top."""

    title: str
    subtitle: str
    cards: list[tuple[str, str, str]]
    columns: Row
    rows: list[Row]
    best: int
    note: str
    accuracy: Picture | None
    first: int
    layer_columns: Row
    fragile_columns: Row
    runs: list[RunView]


def page_of(runs: Sequence[Record], title: str) -> PageView:
    """The page of at least one run."""
    best, why = headline_run(runs)
    compared = [run for run in runs if is_compared(run)]
    return PageView(
        title=clean(title),
        subtitle=_subtitle(runs, best, why),
        cards=_cards(best),
        columns=_in_page_order(comparison_columns(compared)) if compared else (),
        rows=[_in_page_order(comparison_cells(run)) for run in compared],
        best=next((place for place, run in enumerate(compared) if run is best), 0),
        note=_note(compared) if compared else "",
        accuracy=accuracy_picture(compared) if len(compared) > 1 else None,
        first=next(place for place, run in enumerate(runs) if run is best),
        layer_columns=LAYER_COLUMNS,
        fragile_columns=FRAGILE_COLUMNS,
        runs=[
            replace(_run_view(run, place, len(runs) == 1), id=name) for place, (run, name) in enumerate(_named(runs))
        ],
    )


def _named(runs: Sequence[Record]) -> list[tuple[Record, str]]:
    """Runs with their ids: those that are compared are counted, as their points are."""
    places = count()
    return [(run, f"run-{next(places)}" if is_compared(run) else "") for run in runs]


def _note(runs: Sequence[Record]) -> str:
    drops = f"Drop in {'nats per token' if any(map(is_nats, runs)) else 'points'}"
    said = [] if len(runs) == 1 else [note for note in (float_note(runs), drops) if note]
    return ". ".join([*said, "1 KB is 1000 bytes."])


def _in_page_order(row: Row) -> Row:
    """Run, accuracy, drop, file and ratio before the rest, so that a phone shows them."""
    name, bits, equivalent, *results = row
    return (name, *results[:4], bits, equivalent, *results[4:])


def _subtitle(runs: Sequence[Record], best: Record, why: str) -> str:
    models = list(dict.fromkeys(name for run in runs if (name := text(run, "model")) is not None))
    subject = ", ".join(models[:3]) + (" and more" if len(models) > 3 else "")
    shown = f"{run_label(best)}, {why} of {len(runs)} runs" if why else run_label(best)
    return f"{subject} · {shown}" if subject else shown


def _cards(run: Record) -> list[tuple[str, str, str]]:
    if is_told(run):
        return shown(run).cards
    metric = metric_name([run])
    coded, original = file_bits(run), number(run, "float_bytes")
    bits = number(run, "equivalent_bits") if coded is None else coded
    return [
        ("float", show_value(run, "float_value"), metric),
        ("quantized", show_value(run, "quantized_value"), show_loss(run) or metric),
        (
            "file",
            show_bytes(number(run, "stored_bytes")),
            "" if bits is None else f"{bits:.3f} bits per weight",
        ),
        ("smaller", show_ratio(run), "" if original is None else f"from {show_bytes(original)}"),
    ]


def _told_view(run: Record, place: int) -> RunView:
    view, size = shown(run), number(run, "stored_bytes")
    scored = f", {show_value(run, 'quantized_value')}, {show_bytes(size)}" if size is not None else ""
    return RunView(
        label=view.title,
        summary=(text(run, "model") or "") + scored,
        facts=_facts(run),
        pictures=analysis_pictures(view, place),
        fragile=[],
        layers=[],
        skipped=view.without_theory,
        floats=[],
        plan=None,
        reproduce=text(run, "reproduce", 4000),
        analysis=view,
    )


def _run_view(run: Record, place: int, alone: bool) -> RunView:
    if is_told(run):
        return _told_view(run, place)
    beside_float = accuracy_picture([run]) if alone else None
    value, size = show_value(run, "quantized_value"), show_bytes(number(run, "stored_bytes"))
    return RunView(
        label=run_label(run),
        summary=f"{value}, {size}",
        facts=_facts(run),
        pictures=[*([beside_float] if beside_float else []), *run_pictures(run, place)],
        fragile=[_fragile_cells(run, layer, times) for layer, times in fragile_layers(run)[:MOST_FRAGILE]],
        layers=[layer_cells(layer) for layer in entries(run, "layers")],
        skipped=_skipped(run),
        floats=_floats(run),
        plan=_plan(run),
        reproduce=text(run, "reproduce", 4000),
    )


def _attacked(run: Record) -> list[tuple[str, str]]:
    """Accuracy under each attack that was asked for; the float network's behind it, where it was scored."""
    found, original = run.get("attacked") or {}, run.get("float_attacked") or {}
    shown: list[tuple[str, str]] = []
    for name in found:
        beside = number(original, name)
        also = "" if beside is None else f" (float {show_percent(beside)})"
        shown.append((f"top-1 under {clean(name, 40)}", show_percent(number(found, name)) + also))
    return shown


def _facts(run: Record) -> list[tuple[str, str]]:
    texts = [(name, text(run, name)) for name in ("model", "command", "version", "preset", "search")]
    bits, coded = number(run, "bits"), file_bits(run)
    found = [
        *texts,
        ("bits", None if bits is None else show_bits(bits, number(run, "activations"))),
        ("budget", text(run, "budget", 60) or _shown(number(run, "budget"), "g")),
        (f"bits per weight{'' if coded is None else ' before coding'}", _shown(number(run, "equivalent_bits"), ".3f")),
        ("as the file codes them", _shown(coded, ".3f")),
        *_attacked(run),
        (
            "same next token as float" if is_nats(run) else "same class as float",
            _shown(number(run, "agreement"), ".2f", " %"),
        ),
        ("KL from float", _shown(number(run, "kl"), ".5f", " nats")),
        ("tokens scored" if is_nats(run) else "samples scored", _shown(number(run, "eval_samples"), ",.0f")),
        ("gradient steps", _shown(number(run, "iterations"), ".0f")),
        ("time", _shown(number(run, "seconds"), ".1f", " s")),
        ("peak memory", _shown_bytes(number(run, "peak_memory_bytes"))),
        ("seed", _shown(number(run, "seed"), ".0f")),
        ("weights, SHA-256", text(run, "weights_sha256", 13)),
        ("weights", "random: accuracies mean nothing" if run.get("random_weights") is True else None),
    ]
    return [(name, value) for name, value in found if value is not None]


def _fragile_cells(run: Record, layer: Record, times: float) -> Row:
    """Eight bits for a layer of fixed width; where codes have a rate, a bit or two more than the layer takes."""
    error, coded = 100 * (number(layer, "relative_output_error") or 0.0), number(layer, "file_bits_per_weight")
    takes = number(layer, "bits") if coded is None else coded
    shape, name = numbers(layer, "shape"), layer_name(layer)
    rated = is_rated(run) and takes is not None and 0 <= takes <= 8
    wanted = min(8, math.ceil(takes) + 1) if rated and takes is not None else 8
    # Where the price of codes is in the loss, a codec with a rate keeps to it whatever its width.
    codec = "uniform:" if rated and text(run, "command") == "train" else ""
    more = None if takes is None or not shape else max(0.0, math.prod(shape) * (wanted - takes) / 8)
    return (
        name,
        f"{error:.3g} %",
        f"{times:.1f}×" if math.isfinite(times) else NOTHING,
        "float" if takes is None else f"{takes:.3g}",
        "--layer " + shlex.quote(f"{name}={codec}{wanted}"),
        NOTHING if more is None or not math.isfinite(more) else show_bytes(more),
    )


def _skipped(run: Record) -> list[tuple[str, str]]:
    skipped = run.get("skipped")
    if not isinstance(skipped, Mapping):
        return []
    return [(clean(str(name)) or "(model)", clean(str(reason), 500)) for name, reason in skipped.items()]


def _floats(run: Record) -> list[Row]:
    """The largest tensors that the file holds in float."""
    return [
        (text(one, "name") or NOTHING, text(one, "reason", 500) or NOTHING, show_bytes(number(one, "bytes")))
        for one in entries(run, "float_tensors")[:MOST_FLOATS]
    ]


def _plan(run: Record) -> str | None:
    plan = run.get("plan")
    if not isinstance(plan, Mapping) or not plan:
        return None
    return clean(json.dumps(plan, indent=2, ensure_ascii=False, default=str), LONG_PLAN)


def _shown(value: float | None, form: str, unit: str = "") -> str | None:
    return None if value is None else format(value, form) + unit


def _shown_bytes(size_bytes: float | None) -> str | None:
    return None if size_bytes is None else show_bytes(size_bytes)
