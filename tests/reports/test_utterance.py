from __future__ import annotations

import math
from typing import Any

import pytest

from corank.reports.pictures import run_pictures
from corank.reports.plots import utterance

pytest.importorskip("matplotlib")

HEARD: dict[str, Any] = {
    "sample": "7_theo_0.wav", "label": "seven", "seconds": 0.5, "low": [-0.5, -0.2, 0.0], "high": [0.5, 0.3, 0.1],
    "log_mels": [[math.sin(band + place) for place in range(20)] for band in range(8)],
    "classes": [{"name": "one", "probability": 0.3}, {"name": "seven", "probability": 0.7}],
}  # fmt: skip


def test_it_is_drawn_and_told() -> None:
    run = {"utterance": HEARD}
    assert utterance.can_draw(run)
    said = utterance.describe(run)
    assert "seven 70.0 %, one 30.0 %" in said and "7_theo_0.wav" in said and "labelled seven" in said
    (picture,) = run_pictures(run, 0)
    assert picture.markup.startswith("<svg") and "seven" in picture.markup and len(picture.markup) < 60_000


@pytest.mark.parametrize(
    "change",
    [
        {"low": ["<script>"]},
        {"low": []},
        {"log_mels": [[1.0, 2.0], [1.0]]},
        {"log_mels": [[float("nan")] * 3] * 3},
        {"log_mels": "x"},
        {"classes": [{"name": "one", "probability": 7}]},
        {"classes": None},
    ],
)
def test_what_is_not_sound_is_not_drawn(change: dict[str, Any]) -> None:
    assert not utterance.can_draw({"utterance": {**HEARD, **change}})
    assert not utterance.can_draw({"utterance": None})


def test_flat_log_mels_and_hostile_names_are_drawn() -> None:
    odd = {**HEARD, "log_mels": [[1.0] * 5] * 4, "label": "$x_{", "classes": [{"name": "<b>$", "probability": 1.0}]}
    (picture,) = run_pictures({"utterance": odd}, 0)
    assert "<b>" not in picture.markup
