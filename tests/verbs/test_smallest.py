"""The smallest file within a drop: what is tried, what is kept, and that it goes on where it was stopped."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import corank
from corank.data import load as load_images
from corank.models.digits import digits_net
from corank.storage.artifact import serialized
from corank.storage.model_record import run_of
from corank.verbs.smallest import CANDIDATES, RATES


def test_the_smallest_file_within_a_drop() -> None:
    model = digits_net()
    labels = load_images("digits:test")
    found = corank.quantize_smallest(
        model, load_images("digits:train").sample(128, 0).tensor(), 1.0, labels, preset="paper", search="greedy"
    )
    tried = {(bits, budget): (drop, stored) for bits, budget, drop, stored in found.tried}
    run = run_of(found.model)
    assert found.drop <= 1.0
    assert tried[run.bits, run.budget][0] == found.drop  # pyright: ignore
    kept = [stored for drop, stored in tried.values() if drop <= 1.0]
    assert tried[run.bits, run.budget][1] == min(kept)  # pyright: ignore


@pytest.fixture(scope="module")
def few() -> Tensor:
    return load_images("digits:train").sample(64, 0).tensor()


def test_candidates_grow() -> None:
    assert sorted(RATES) == list(RATES) and sorted(CANDIDATES) == list(CANDIDATES)


def test_rates_are_bisected(few: Tensor) -> None:
    found = corank.quantize_smallest(digits_net(), few, 1.0, load_images("digits:test"), rate="auto")
    for trial in found.tried:
        assert trial.bits in RATES and trial.budget == 0
    kept = min((trial for trial in found.tried if trial.drop <= 1.0), key=lambda trial: trial.stored_bytes)
    assert kept.drop == found.drop and kept.stored_bytes == len(serialized(found.model))
    lost = [trial for trial in found.tried if trial.drop > 1.0]
    assert all(trial.bits < kept.bits for trial in lost)
    assert abs(len(RATES).bit_length() - len(found.tried)) <= 1


def test_a_drop_that_nothing_keeps(few: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = torch.randn(few.shape, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(sys.modules["corank.verbs.smallest"], "RATES", (0.2, 0.4))
    with pytest.raises(corank.BudgetError, match=r"no file keeps within 0\.0; the least lost was .* at 0\.4 bits"):
        corank.quantize_smallest(digits_net(), few, 0.0, [noise], rate="auto", search="uniform")


def test_exceptions_hold_in_every_trial(few: Tensor) -> None:
    found = corank.quantize_smallest(
        digits_net(), few, 5.0, load_images("digits:test"), preset="nearest", layers={"stage1.*": "float"}
    )
    assert not any(name.startswith("stage1.") for name in run_of(found.model).plan.coded())


def test_goes_on_from_a_checkpoint(few: Tensor, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(what: str, done: int, total: int) -> None:
        seen.update({what.split(":")[0]} if " bits" in what else ())
        if len(seen) == 3:
            raise Stopped

    seen: set[str] = set()
    model, scored = digits_net(), load_images("digits:test")
    with pytest.raises(Stopped):
        corank.quantize_smallest(model, few, 1.0, scored, rate="auto", checkpoint=tmp_path / "kept", progress=stop)
    assert {path.name.split("-")[0] for path in (tmp_path / "kept").iterdir()} >= {"2+0", "1.2+0"}
    again = corank.quantize_smallest(model, few, 1.0, scored, rate="auto", checkpoint=tmp_path / "kept")
    straight = corank.quantize_smallest(model, few, 1.0, scored, rate="auto")
    assert again.tried == straight.tried
    assert corank.diff(again.model, straight.model)["equal"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_drop": -1.0}, "max_drop=-1.0: points that may be lost"),
        ({"max_drop": float("nan")}, "max_drop=nan"),
        ({"rate": 2.0}, "give rate='auto'"),
        ({"rate": "auto", "codec": "ternary"}, "rate and codec were given"),
    ],
)
def test_refusals(few: Tensor, settings: dict[str, object], said: str) -> None:
    with pytest.raises(corank.ConfigError, match=said):
        corank.quantize_smallest(
            digits_net(),
            few,
            evaluation=load_images("digits:test"),
            **{"max_drop": 1.0, **settings},  # pyright: ignore
        )
