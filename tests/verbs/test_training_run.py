"""The float copies of a training stay no longer than they are asked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training.test_resume import Killed, network, samples, trained

import corank
from corank.storage.artifact import serialized
from corank.storage.model_record import ATTRIBUTE
from corank.training.callbacks import Callback
from corank.training.recipes import RECIPES
from corank.training.state import TrainingState
from corank.training.teacher_cache import Remembering
from corank.verbs.training_run import TrainingRun

RUNS: list[TrainingRun] = []


@dataclass(frozen=True)
class Looks(Callback):
    """Whether the float copies are there while it trains."""

    expected: bool = True

    def step_done(self, state: TrainingState) -> None:
        run = RUNS[-1]
        for context in (run.context, run.teacher):
            assert all(not one.is_meta for one in context.model.parameters()) is self.expected
        assert not any(one.is_meta for one in state.model.parameters())


@pytest.mark.parametrize(
    ("recipe", "stays"),
    [
        (RECIPES["stats"](2, None), True),
        (RECIPES["stats"](2, None).replaced(augment="none"), False),  # the outputs are remembered
        (RECIPES["stats"](2, None).replaced(loss="labels"), False),
        (RECIPES["binary"](1, 1).replaced(augment="none"), False),  # of another structure
    ],
)
def test_float_copies_rest_where_no_step_asks_them(
    recipe: corank.Recipe, stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"iterations": 4, "batch_size": 12}
    begin = TrainingRun.begin

    def remembered(run: TrainingRun, context: Any) -> TrainingState:
        RUNS.append(run)
        return begin(run, context)

    monkeypatch.setattr(TrainingRun, "begin", remembered)
    small = corank.train(network(), samples(), recipe, callbacks=[Looks(stays)], **asked)
    monkeypatch.setattr(TrainingRun, "rest", lambda _: None)
    kept = corank.train(network(), samples(), recipe, **asked)
    assert bytes(serialized(small)) == bytes(serialized(kept))
    for name, layer in kept.__dict__[ATTRIBUTE].layers.items():
        found = small.__dict__[ATTRIBUTE].layers[name].relative_output_error
        assert found == pytest.approx(layer.relative_output_error, rel=1e-5)


def test_outputs_that_are_kept_in_the_checkpoint_are_those_of_a_run_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = partial(Remembering, memory_bytes=0)
    monkeypatch.setattr("corank.verbs.training_data.Remembering", tight)
    recipe = RECIPES["stats"](2, None).replaced(augment="none")
    whole = trained(recipe, tmp_path / "whole")
    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        trained(recipe, folder, 5)
    assert (folder / "teacher" / "teacher.0.bin").stat().st_size == 32 * 4 * 4
    assert trained(recipe, folder) == whole


def test_latents_scales_and_the_optimizer_stay_float32_in_bfloat16() -> None:
    seen: list[set[torch.dtype]] = []

    @dataclass(frozen=True)
    class Types(Callback):
        def step_done(self, state: TrainingState) -> None:
            assert state.optimizer is not None
            found = {one.dtype for one in state.model.parameters()}
            found |= {one.dtype for layer in state.layers.values() if layer.inputs for one in layer.inputs.parameters()}
            for own in state.optimizer.state.values():
                found |= {one.dtype for one in own.values() if isinstance(one, torch.Tensor)}
            found |= {one.grad.dtype for one in state.model.parameters() if one.grad is not None}
            seen.append(found)
            assert state.output.dtype == torch.bfloat16

    for dtype in (torch.float32, torch.bfloat16):
        model: nn.Module = network().to(dtype)
        data = samples()[0].to(dtype)
        recipe = RECIPES["lsq"](4, 4).replaced(precision="bfloat16")
        small = corank.train(model, data, recipe, iterations=2, batch_size=12, callbacks=[Types()])
        assert {one.dtype for one in small.parameters()} <= {dtype}
    assert seen == [{torch.float32}] * 4
