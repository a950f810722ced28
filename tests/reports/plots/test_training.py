"""The course of a training: a panel for each number that was recorded, and none for the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="plots need the extra `report`")

import numpy as np
from matplotlib.axes import Axes

from corank.reports import read_record, write_record
from corank.reports.plots import course, refinement, training


def history(steps: int = 60) -> list[dict[str, float]]:
    found: list[dict[str, float]] = []
    for step in range(1, steps + 1):
        entry = {"iteration": step, "loss": 2.0 / step, "budget_bits": 0.0}
        if step % 10 == 0:
            entry |= {"oscillations": 100.0 - step, "moved": 0.5 / step, "norm": 6.0 + step / 60}
        found.append(entry)
    return found


def line(axes: Axes, gid: str) -> tuple[list[float], list[float]]:
    (found,) = [found for found in axes.lines if found.get_gid() == gid]
    return np.asarray(found.get_xdata()).tolist(), np.asarray(found.get_ydata()).tolist()


def titles(run: dict[str, Any]) -> list[str]:
    return [axes.get_title(loc="left") for axes in training.draw(run).axes]


def test_each_number_has_a_panel_over_the_steps_that_told_it(run: dict[str, Any]) -> None:
    steps = history()
    told = {**run, "search_history": steps}
    assert training.can_draw(told) and not course.can_draw(told) and not refinement.can_draw(told)
    panels = training.draw(told).axes
    assert [axes.get_title(loc="left") for axes in panels] == [
        "loss", "oscillations at a look", "codes that moved (%)", "mean norm of the weights",
    ]  # fmt: skip
    assert line(panels[0], "loss") == ([step["iteration"] for step in steps], [step["loss"] for step in steps])
    looked = [step for step in steps if "moved" in step]
    places = [step["iteration"] for step in looked]
    assert line(panels[1], "oscillations") == (places, [step["oscillations"] for step in looked])
    assert line(panels[2], "moved") == (places, [100 * step["moved"] for step in looked])
    assert line(panels[3], "norm") == (places, [step["norm"] for step in looked])
    assert {axes.get_xlim() for axes in panels} == {(0.0, 60.0)}
    assert training.describe(told).startswith("60 steps of a training. loss: from 0.817 to 0.0348; ")


def test_score_and_bits_are_drawn_where_they_were_recorded() -> None:
    steps = [{"iteration": step, "loss": 1.0, "score": 80.0 + step, "rate": 0.6 - step / 100} for step in range(5)]
    assert titles({"search_history": steps}) == ["loss", "score", "bits per weight, coded"]
    steps = [{**step, "rate_bits": step["rate"]} for step in steps]
    assert titles({"search_history": steps}) == ["loss", "score", "bits per weight, coded"]


def test_a_training_is_told_from_the_search_before_it(run: dict[str, Any]) -> None:
    assert course.can_draw(run) and not training.can_draw(run)
    both = {**run, "search_history": [*run["search_history"], *history()]}
    assert course.describe(both) == course.describe(run)
    assert training.describe(both) == training.describe({"search_history": history()})


def test_one_step_or_numbers_of_no_run_are_not_drawn() -> None:
    assert not training.can_draw({"search_history": history(1)})
    assert not training.can_draw({"search_history": [{"loss": "1"}, {"loss": None}, {"loss": 1e300}]})
    assert not training.can_draw({})


def test_a_record_keeps_the_numbers_and_refuses_others(run: dict[str, Any], tmp_path: Path) -> None:
    write_record(tmp_path / "run.json", {**run, "search_history": history()})
    (found,) = read_record(tmp_path / "run.json")
    assert training.describe(found) == training.describe({"search_history": history()})
    wrong = json.loads((tmp_path / "run.json").read_text())
    wrong["search_history"][9]["moved"] = []
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))
    with pytest.raises(Exception, match="search step 9: moved"):
        read_record(tmp_path / "wrong.json")
