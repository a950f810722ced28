"""Views of analyses: what they say of numbers that are known, and of records that nobody should trust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corank.errors import ArtifactError
from corank.reports import read_record, write_record, write_report
from corank.reports.analyses import shown


def run_of(analysis: dict[str, Any]) -> dict[str, Any]:
    return {"format": 1, "command": "analyse", "model": "net.py:make", "analysis": analysis}


def layer(name: str, harm: float, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "bits": 3, "rank": 1, "harm": harm, "harm_before": 2 * harm, "norm": 2.0, "bound": 2.5,
        "reshaped_norm": 1.0, "residual": 0.2, "residual_before": 0.4, **more,
    }  # fmt: skip


LIPSCHITZ = {
    "what": "lipschitz", "layers": [layer("a", 0.1), layer("b.c", 0.7), layer("d", 0.2)], "upper": 1e7, "lower": 3.0,
    "harm_together": 1.25, "no_theory": {"table": "it is looked up"}, "not_compared": {}, "notes": ["said."],
}  # fmt: skip
SPECTRAL = {
    "what": "spectral", "samples": 9, "labelled": True, "moved": [-0.5, 0.5], "moved_error": [0.1, 0.1],
    "edges": [0, 0.35, 0.71],
    "float": {"importance": [3, 1], "share": [0.75, 0.25], "error": [0.1, 0.1], "all": -0.5, "none": -2, "score": 0.9,
              "right": [10, 60, 90]},
    "quantized": {"importance": [1, 3], "share": [0.25, 0.75], "error": [0.1, 0.1], "all": -0.9, "none": -2,
                  "score": 0.8, "right": [10, 40, 80]},
}  # fmt: skip
INTERACTION = {
    "what": "interaction", "kept": [0.25, 0.5, 1.0], "interaction": [50, 88, 90], "principal": [20, 50, 90],
    "layers": [{"name": "a", "inputs": 8, "interaction": 3, "principal": 6}], "energy": 0.99,
}  # fmt: skip
THROUGH = {
    "what": "straight-through", "samples": 8, "draws": 24, "labelled": False, "trial_bits": 3,
    "layers": [
        {"name": "a", "slope": 2.0, "slope_error": 0.1, "straight_through": 2.1, "straight_through_error": 0.1,
         "bias": 0.1, "bias_error": 0.1, "ratio": 1.05, "ratio_error": 0.05, "noise": 3.0, "nearest": 0.5, "bits": 3,
         "mean_error": 0.5, "variance": 1.0, "variance_of_step": 0.16, "noise_like_before": 0.1, "weights": 10},
        {"name": "b", "slope": 2.0, "slope_error": 0.1, "straight_through": 4.0, "straight_through_error": 0.1,
         "bias": 2.0, "bias_error": 0.1, "ratio": 2.0, "ratio_error": 0.05, "noise": 1.0, "nearest": 0.7, "bits": 3,
         "mean_error": 9.0, "variance": 1.0, "variance_of_step": 0.16, "noise_like_before": 0.1, "weights": 10},
        {"name": "c", "slope": 0.1, "slope_error": 1.0, "ratio": 40.0, "ratio_error": 9.0, "bias": 0, "bias_error": 1},
    ],
}  # fmt: skip
ALL = {"lipschitz": LIPSCHITZ, "spectral": SPECTRAL, "interaction": INTERACTION, "straight-through": THROUGH}


def test_the_layer_that_hurts_is_named_with_its_share() -> None:
    view = shown(run_of(LIPSCHITZ))
    assert view.verdict.startswith("b.c hurts most") and "70 % of the harm" in view.verdict
    assert "--layer b.c=8" in view.verdict and "makes up" not in view.verdict
    assert ("hurts most", "b.c", "70 % of the harm") in view.cards and view.without_theory == [
        ("table", "it is looked up")
    ]
    assert view.tables[0].rows[1][4] == "70 %" and view.tables[0].rows[1][6:8] == ("10 %", "20 %")
    assert "said." in view.remarks and "says little" in view.remarks[0]


def test_layers_that_have_eight_bits_by_themselves_are_not_advised_on() -> None:
    layers = [{"name": name, "harm": harm, "bits": 3} for name, harm in (("a", 6.0), ("b", 3.0), ("c", 1.0))]
    trial = {"what": "lipschitz", "layers": layers, "trial_bits": 3, "spared": ["a", "c"]}
    verdict = shown(run_of(trial)).verdict
    assert verdict.startswith("a hurts most") and "spares a and c by itself" in verdict
    assert "b does most, 30 %" in verdict and verdict.endswith("Spare it by --layer b=8.")
    assert "spares" not in shown(run_of({**trial, "trial_bits": None})).verdict
    alone = shown(run_of({**trial, "layers": layers[:1], "spared": ["a"]})).verdict
    assert "spares a by itself" in alone and "--layer" not in alone


def test_what_the_quantized_network_sees_less_of() -> None:
    view = shown(run_of(SPECTRAL))
    assert "0.40 nats less" in view.verdict and "less on band 1 and more on band 2" in view.verdict
    assert [row[4] for row in view.tables[0].rows] == ["−50.0", "+50.0"]


def test_directions_that_are_enough() -> None:
    assert "With 50 % of its directions" in shown(run_of(INTERACTION)).verdict
    assert "fewer than by principal directions, which need 100 %" in shown(run_of(INTERACTION)).verdict


def test_slopes_that_are_off_and_a_rounder_that_is_not_sound() -> None:
    view = shown(run_of(THROUGH))
    assert "In 1 of the 2 layers that can be measured" in view.verdict and "off in b" in view.verdict
    assert "not sound in b" in view.verdict and any("c is lost in noise" in said for said in view.remarks)


@pytest.mark.parametrize("what", ALL)
def test_pages(what: str, tmp_path: Path) -> None:
    page = write_report(tmp_path / "page.html", [run_of(ALL[what])]).read_text()
    view = shown(run_of(ALL[what]))
    assert page.count("<svg") == len(view.drawings) > 0
    assert view.title in page and page.count("<script") == 1
    both = write_report(tmp_path / "both.html", [run_of(ALL[what]), run_of(LIPSCHITZ)]).read_text()
    assert "Which layers hurt?" in both and "Comparison" not in both


@pytest.mark.parametrize("what", [*ALL, "of a later version"])
def test_records_that_hold_nothing_or_rubbish_are_shown_all_the_same(what: str, tmp_path: Path) -> None:
    rubbish: list[dict[str, Any]] = [
        {}, {"layers": [{}, {"name": "<b>x</b>", "harm": "much", "norm": -1, "ratio": 1e300, "interaction": [1]}]},
        {"float": 3, "quantized": [], "moved": ["a"], "kept": {}, "notes": 3, "interaction": [1], "upper": 1e999},
        {"layers": [layer("a", 0.0), layer("b", -1.0)], "lower": 0, "float": {"share": [1, 2], "right": []}},
    ]  # fmt: skip
    for one in rubbish:
        page = write_report(tmp_path / "page.html", [run_of({**one, "what": what})]).read_text()
        assert "<b>x</b>" not in page


def test_records_are_checked(tmp_path: Path) -> None:
    for wrong in ({"what": 3}, {"layers": [1]}, {"no_theory": []}):
        write_record(tmp_path / "run.json", run_of({"what": "lipschitz", **wrong}))
        with pytest.raises(ArtifactError, match="its analysis"):
            read_record(tmp_path / "run.json")
