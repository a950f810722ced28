"""TensorBoard: what was measured stands in the folder; without the extra, what to install is said."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from training.stepping import state_of, stepped

from corank.codecs import StatsQ
from corank.errors import ConfigError
from corank.training.callbacks import CALLBACKS, Meters, TensorBoard
from corank.training.recipe import Recipe
from corank.training.weights import StraightThrough


def test_what_was_measured_stands_in_the_folder(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra `tensorboard`")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "board"
    state = state_of(Recipe(weights=StraightThrough(StatsQ(2)), callbacks=(Meters(every=2), TensorBoard(folder))))
    optimizer = torch.optim.AdamW(state.model.parameters(), lr=0.05)
    stepped(state, optimizer, 4)
    state.recipe.callbacks[1].finished(state)
    found = EventAccumulator(str(folder)).Reload()
    moved = found.Scalars("training/moved")
    assert [one.step for one in moved] == [2, 4]
    assert moved[-1].value == pytest.approx(state.measured["moved"])
    assert [one.value for one in found.Scalars("training/learning rate")] == pytest.approx([0.05] * 4)


def test_what_to_install_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'corank\[tensorboard\]'"):
        TensorBoard(tmp_path)


def test_it_is_no_part_of_a_recipe() -> None:
    assert TensorBoard not in CALLBACKS.values()
