"""The page of a study: what was best, the course, which choices mattered, and every trial with its command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from corank.errors import DataError
from corank.files import make_directory, write_whole
from corank.reports.cells import NOTHING, show_bytes
from corank.reports.fields import Record, clean, entries, number, text
from corank.reports.html import page_path, rendered
from corank.reports.pictures import Picture, picture_of
from corank.reports.plots.study import (
    can_draw_front,
    can_draw_importance,
    draw_front,
    draw_history,
    draw_importance,
    is_weighed_by_work,
    last_rung,
    sized,
)

__all__ = ["StudyView", "study_page", "write_study"]

Row = tuple[str, ...]
TRIAL_COLUMNS = ("trial", "state", "score", "error", "file", "multiply-adds", "ms", "seconds", "configuration")
ALWAYS = ("trial", "state", "score", "configuration")
VALUE_COLUMNS = ("choice", "value", "trials", "mean score")


@dataclass(frozen=True)
class MadeView:
    """A trial, what it is, and the command that makes it; ``id`` is its own in the page."""

    id: str
    name: str
    what: str
    command: str


@dataclass(frozen=True)
class StudyView:
    """What the page says; ``shown`` stands beside the picture of the front until a reader chooses another point."""

    title: str
    subtitle: str
    cards: list[tuple[str, str, str]]
    front_picture: Picture | None
    cost: str
    shown: MadeView
    pictures: list[Picture]
    trial_columns: Row
    trials: list[Row]
    best: int
    note: str
    values: list[Row]
    front: list[MadeView]
    others: list[MadeView]
    reproduce: str | None
    value_columns: Row = VALUE_COLUMNS


def write_study(path: str | Path, study: Record, title: str = "corank tune") -> Path:
    """Writes one HTML file, which needs no other file and no network; returns its path.

    Args:
        path: a folder, made where it is missing, that gets an `index.html`; or a name that ends in `.html`.
        study: of :meth:`corank.Tuned.to_json`.
        title: of the page.

    Raises:
        DataError: a study without trials. ConfigError: matplotlib or jinja2 is not installed.
        OutputError: the file cannot be written.
    """
    if not entries(study, "trials"):
        raise DataError("a report needs at least one trial; write_study(path, tune(...).to_json()) gives it")
    content = rendered("study.html", study_page(study, title))
    target = page_path(Path(path))
    make_directory(target.parent)
    write_whole(target, content.encode("utf-8"))
    return target


def study_page(study: Record, title: str) -> StudyView:
    """The page of a study of at least one trial."""
    trials = entries(study, "trials")
    best = number(study, "best")
    ranked = sorted(trials, key=lambda one: _rank(one, best))
    space = study.get("space")
    name = text(space, "name") if isinstance(space, Mapping) else None
    subject = " · ".join(part for part in (text(study, "model"), f"space {name}" if name else None) if part)
    front = set(map(str, study.get("front") or ()))
    made = [(one is ranked[0] or _name(one) in front, _told(one)) for one in ranked]
    columns, rows = _table([_cells(one) for one in ranked])
    return StudyView(
        title=clean(title),
        subtitle=" · ".join(part for part in (subject, _count(len(trials))) if part),
        cards=_cards(study, trials, best),
        front_picture=_front_picture(study),
        cost="multiply-adds" if is_weighed_by_work(study) else "size",
        shown=made[0][1],
        pictures=_pictures(study),
        trial_columns=columns,
        trials=rows,
        best=0 if best is not None else -1,
        note=_note(columns),
        values=_values(study),
        front=[one for first, one in made if first],
        others=[one for first, one in made if not first],
        reproduce=text(study, "reproduce", 4000),
    )


def _count(trials: int) -> str:
    return f"{trials} trial" + ("" if trials == 1 else "s")


def _table(rows: list[Row]) -> tuple[Row, list[Row]]:
    """The columns in which some row says something."""
    kept = [
        place
        for place, name in enumerate(TRIAL_COLUMNS)
        if name in ALWAYS or any(row[place] != NOTHING for row in rows)
    ]
    return tuple(TRIAL_COLUMNS[place] for place in kept), [tuple(row[place] for place in kept) for row in rows]


def _note(columns: Row) -> str:
    error = "A score's error is its standard error against the float network on the same samples."
    said = [error if "error" in columns else "", "1 KB is 1000 bytes." if "file" in columns else ""]
    return " ".join(part for part in said if part)


def _rank(trial: Record, best: float | None) -> tuple[bool, bool, float]:
    score = number(last_rung(trial), "score")
    is_best = best is not None and number(trial, "number") == best
    return not is_best, text(trial, "state") != "complete", -(score if score is not None else -1e18)


def _cards(study: Record, trials: list[Record], best: float | None) -> list[tuple[str, str, str]]:
    scored = text(study, "scored", 40) or "score"
    chosen = next((one for one in trials if number(one, "number") == best), {})
    found, final = last_rung(chosen), study.get("final")
    reference = number(study, "reference")
    noise = number(found, "error")
    cards = [("best", _shown(found, "score", ".2f"), scored + (f", ± {noise:.2f}" if noise else ""))]
    if isinstance(final, Mapping):
        samples = number(final, "samples") or 0
        cards.append(("final", _shown(final, "score", ".2f"), f"on {samples:,.0f} samples that nothing was chosen by"))
    if reference is not None:
        cards.append(("float", f"{reference:.2f}", scored))
    if number(found, "size_bytes") is not None:
        cards.append(("file", show_bytes(number(found, "size_bytes")), f"trial {_name(chosen)}"))
    return cards


def _pictures(study: Record) -> list[Picture]:
    found = [
        picture_of(
            draw_history(study), "history", "The score of every trial in order.",
            "Each trial's score on the most data that it was given, and the best that met the goal.",
        )
    ]  # fmt: skip
    if can_draw_importance(study):
        told = "; ".join(
            f"{text(one, 'name')}: {100 * (number(one, 'share') or 0):.0f} %" for one in entries(study, "importance")
        )
        found.append(picture_of(
            draw_importance(study), "importance", told,
            "Share of the scores' variance that lies between a choice's values, complete trials alone. Of few trials "
            "it is rough, and choices that were tried together share what they explain.",
        ))  # fmt: skip
    return found


def _front_picture(study: Record) -> Picture | None:
    if not can_draw_front(study):
        return None
    trials = {_name(one): one for one in entries(study, "trials")}
    points = {f"trial-{one[2]}": f"Trial {one[2]}: {_in_short(trials[str(one[2])])}" for one in sized(study)}
    return picture_of(
        draw_front(study), "front", "Score against the size of the file; a point for each trial.",
        "The line joins the trials that no other one beats in both; their numbers are those of the table. A point says "
        "what makes it.", points,
    )  # fmt: skip


def _in_short(trial: Record) -> str:
    found = last_rung(trial)
    size = number(found, "size_bytes")
    return _shown(found, "score", ".2f") + ("" if size is None else f" in {show_bytes(size)}")


def _cells(trial: Record) -> Row:
    found = last_rung(trial)
    size = number(found, "size_bytes")
    said = text(trial, "reason", 300) or _configuration(trial)
    return (
        _name(trial), text(trial, "state", 20) or NOTHING, _shown(found, "score", ".2f"), _shown(found, "error", ".2f"),
        NOTHING if size is None else show_bytes(size), _shown(found, "multiply_adds", ",.0f"),
        _shown(found, "latency_ms", ".2f"), _shown(trial, "seconds", ".1f"), said,
    )  # fmt: skip


def _told(trial: Record) -> MadeView:
    what = ", ".join(part for part in (_in_short(trial) if last_rung(trial) else "", _configuration(trial)) if part)
    command = text(trial, "command", 4000) or "a function of one's own"
    return MadeView(f"trial-{_name(trial)}", f"Trial {_name(trial)}", what, command)


def _values(study: Record) -> list[Row]:
    rows: list[Row] = []
    for choice in entries(study, "importance"):
        values = sorted(entries(choice, "values"), key=lambda one: -(number(one, "score") or 0.0))
        for value in values if len(values) > 1 else ():
            shown = "none" if value.get("value") is None else clean(str(value.get("value")), 60)
            rows.append(
                (text(choice, "name") or NOTHING, shown, _shown(value, "trials", ".0f"), _shown(value, "score", ".2f"))
            )
    return rows


def _configuration(trial: Record) -> str:
    chosen = trial.get("configuration")
    given = chosen if isinstance(chosen, Mapping) else {}
    return clean(", ".join(f"{name} {'none' if value is None else value}" for name, value in given.items()), 400)


def _name(trial: Record) -> str:
    return _shown(trial, "number", ".0f")


def _shown(record: Record, key: str, form: str) -> str:
    value = number(record, key)
    return NOTHING if value is None else format(value, form)
