"""The page of a study: what it says, what it takes from nobody on trust, and that nothing is fetched."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from corank.errors import DataError
from corank.reports.plots.study import draw_front, draw_history, draw_importance
from corank.reports.plots.style import image_bytes
from corank.reports.study import study_page, write_study


def trial(number: int, state: str, score: float | None, size: int | None = None) -> dict[str, Any]:
    rungs = [] if score is None else [{"score": score, "error": 0.2, "size_bytes": size, "samples": 100}]
    return {
        "number": number, "state": state, "configuration": {"codes": "rate", "group": None}, "rungs": rungs,
        "seconds": 1.5, "command": f"corank tune net --configuration {number}",
        "reason": "no luck" if score is None else "",
    }  # fmt: skip


STUDY: dict[str, Any] = {
    "model": "net", "space": {"name": "corank"}, "scored": "top-1", "reference": 91.0, "best": 2, "front": [0, 2],
    "goal": {"size": 60_000, "least": None}, "final": {"score": 89.5, "samples": 2000}, "reproduce": "corank tune net",
    "importance": [{"name": "codes", "share": 0.7, "values": [
        {"value": "rate", "trials": 3, "score": 88.0}, {"value": None, "trials": 1, "score": 80.0}]}],
    "trials": [trial(0, "complete", 85.0, 40_000), trial(1, "pruned", 20.0, 50_000), trial(2, "complete", 90.0, 59_000),
               trial(3, "failed", None), trial(4, "complete", 90.5, 70_000)],
}  # fmt: skip


def test_the_best_trial_stands_first_and_its_command_can_be_read() -> None:
    page = study_page(STUDY, "corank tune")
    assert page.subtitle == "net · space corank · 5 trials"
    assert [one[0] for one in page.trials] == ["2", "4", "0", "1", "3"] and page.best == 0
    assert page.trials[-1][-1] == "no luck"
    assert [(one.name, one.command) for one in page.front] == [
        ("Trial 2", "corank tune net --configuration 2"), ("Trial 0", "corank tune net --configuration 0")
    ]  # fmt: skip
    assert page.shown == page.front[0] and page.shown.what == "90.00 in 59.00 KB, codes rate, group none"
    assert [one.id for one in page.others] == ["trial-4", "trial-1", "trial-3"]
    assert "multiply-adds" not in page.trial_columns and "ms" not in page.trial_columns
    assert [card[:2] for card in page.cards] == [
        ("best", "90.00"),
        ("final", "89.50"),
        ("float", "91.00"),
        ("file", "59.00 KB"),
    ]
    assert page.values == [("codes", "rate", "3", "88.00"), ("codes", "none", "1", "80.00")]


def test_one_file_that_fetches_nothing_and_shows_texts_as_texts(tmp_path: Path) -> None:
    hostile = {**STUDY, "model": "<script>alert(1)</script>", "reproduce": "<img onerror=alert(1)>"}
    text = write_study(tmp_path / "page", hostile).read_text()
    assert (tmp_path / "page" / "index.html").is_file()
    assert text.count("<script") == 1 and "<img" not in text and text.count("<svg") == 3
    assert re.findall(r'class="point" href="#(trial-\d)" aria-label="([^"]*)"', text) == [
        ("trial-4", "Trial 4: 90.50 in 70.00 KB"), ("trial-0", "Trial 0: 85.00 in 40.00 KB"),
        ("trial-2", "Trial 2: 90.00 in 59.00 KB"),
    ]  # fmt: skip
    assert all(text.count(f'id="trial-{place}"') == 1 for place in range(5))
    assert not re.search(r"(?:src|href)=.(?!#)|url\(|https?://(?!www\.w3)", text)


def test_pictures_of_studies_that_lack_things() -> None:
    for study in (
        STUDY,
        {**STUDY, "goal": None, "reference": None, "front": None},
        {"trials": [trial(0, "failed", None)]},
    ):
        assert image_bytes(draw_history(study))[:4] == b"\x89PNG"
    assert image_bytes(draw_importance(STUDY)) != image_bytes(draw_importance({**STUDY, "importance": []}))
    assert image_bytes(draw_front(STUDY)) != image_bytes(draw_front({**STUDY, "front": []}))
    page = study_page({"trials": [trial(0, "failed", None)]}, "t")
    assert len(page.pictures) == 1 and page.front_picture is None and page.subtitle == "1 trial"


def test_subnets_are_weighed_by_their_work() -> None:
    trials = [trial(place, "complete", 80.0 + place, 900) for place in range(2)]
    for place, one in enumerate(trials):
        one["rungs"][0]["multiply_adds"] = 1_000_000 * (1 + place)
    study = {"trials": trials, "by": "multiply_adds", "front": [0, 1], "best": 1}
    page = study_page(study, "t")
    assert page.cost == "multiply-adds" and page.trials[0][page.trial_columns.index("multiply-adds")] == "2,000,000"
    assert page.front_picture is not None and "millions" in page.front_picture.markup
    assert study_page({**study, "by": "size_bytes"}, "t").front_picture is None


def test_no_trials(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one trial"):
        write_study(tmp_path, {"trials": []})
