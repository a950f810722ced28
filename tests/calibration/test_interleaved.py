"""Two samples show whether batches may walk through a network side by side."""

from __future__ import annotations

import pytest
import torch
from reference.networks import Branching, Keeping, Noisy, targets_of
from torch import nn

from corank.calibration.interleaved import Interleaving, interleaving_of


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Branching(), Interleaving(sound=True, at_once=True)),
        (Keeping(False), Interleaving(sound=True, at_once=True)),
        (Keeping(True), Interleaving(sound=False, at_once=False)),
        (Keeping(False, shown=True), Interleaving(sound=True, at_once=False)),  # kept, and never read
    ],
)
def test_two_samples_show_what_may_run_side_by_side(model: nn.Module, expected: Interleaving) -> None:
    width = 4 if isinstance(model, Branching) else 8
    batches = [torch.randn(5, width) * size for size in (1, 7)]
    state = torch.get_rng_state()
    assert interleaving_of(model, targets_of(model), batches, torch.device("cpu")) == expected
    assert torch.equal(torch.get_rng_state(), state)
    assert interleaving_of(model, targets_of(model), batches[:1], torch.device("cpu")).sound


def test_a_network_that_draws_is_not_taken_for_one_that_keeps() -> None:
    batches = [torch.rand(3, 4) + 1, torch.rand(3, 4) + 2]
    assert interleaving_of(Noisy(), targets_of(Noisy()), batches, torch.device("cpu")).sound is True
