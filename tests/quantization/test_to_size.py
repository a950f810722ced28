"""Predicted sizes: never less than the file takes, and little more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fuzzing.artifacts import SAMPLES, sample_inputs, sample_model
from torch import nn

import corank
from corank.codecs import ICQuant
from corank.layers import prepare
from corank.models.digits import digits_net
from corank.quantization.to_size import FRAME_BYTES
from corank.storage.contents import predict_bytes
from corank.storage.model_record import LayerRecord, run_of


@pytest.mark.parametrize("name", sorted(set(SAMPLES) - {"half"}))
def test_the_prediction_is_a_bound_and_tight(name: str, tmp_path: Path) -> None:
    sample, model = SAMPLES[name], sample_model(SAMPLES[name])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = sample.network().eval()
    inputs, run = sample_inputs(sample), run_of(model)
    predicted = predict_bytes(prepare(network, lambda one: one(inputs)), run)
    stored = corank.save(model, tmp_path / "file", coder="fixed")
    assert stored <= predicted <= stored + 16


def test_the_bound_holds_for_errors_of_any_size(tmp_path: Path) -> None:
    model = sample_model(SAMPLES["codecs"])
    run, sample = run_of(model), SAMPLES["codecs"]
    predicted = predict_bytes(prepare(sample.network().eval(), lambda one: one(sample_inputs(sample))), run)
    for errors in ([1e-31, 9.99e31, 0.0, 0.123], [0.0] * 4, [float("nan"), 1e-45, 1.0, 1e-9]):
        layers = zip(run.layers.items(), errors, strict=True)
        run_of(model).layers.update(  # pyright: ignore
            {name: LayerRecord(layer.shape, error) for (name, layer), error in layers}
        )
        assert corank.save(model, tmp_path / "file", coder="fixed") <= predicted + FRAME_BYTES


def test_the_bound_holds_for_codecs_that_say_what_they_measured(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 5)).eval()
    inputs = torch.randn(64, 40)
    small = corank.quantize(network, inputs, preset="nearest", layers={"*": ICQuant(2, 0.1)}, budget=0.0)
    run, unfitted = run_of(small), ICQuant(2, 0.1)
    plan = run.plan.with_codecs(dict.fromkeys(run.plan.layers, unfitted))
    predicted = predict_bytes(prepare(network, lambda one: one(inputs)), replace(run, plan=plan))
    assert corank.save(small, tmp_path / "file", coder="fixed") <= predicted


@pytest.mark.parametrize("search", ["greedy", "joint", "uniform", corank.CoRa(iterations=2, batch_size=8)])
@pytest.mark.parametrize("size", [34_000, 52_001])
def test_a_size_that_was_asked_for_is_kept_and_used(search: object, size: int, tmp_path: Path) -> None:
    images = torch.rand(48, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    small = corank.quantize(digits_net(), images, size=size, preset="nearest", search=search)  # pyright: ignore
    stored = corank.save(small, tmp_path / "file", coder="fixed")
    assert stored <= size
    if search in ("greedy", "joint"):
        assert stored > 0.985 * size


class AVeryPatientSearchThatIsNamedAtGreatLengthAndThenSomeMore(corank.UniformRanks):
    """A search whose name is longer than any margin."""


def test_names_of_any_length_are_counted(tmp_path: Path) -> None:
    images = torch.rand(48, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    search, reference = AVeryPatientSearchThatIsNamedAtGreatLengthAndThenSomeMore(), "a/long/reference:" + "qwerty" * 30
    least = None
    for size in range(25_000, 65_000, 9_001):
        try:
            small = corank.quantize(
                digits_net(), images, size=size, preset="nearest", search=search, reference=reference
            )
        except corank.BudgetError:
            continue
        least = least or size
        assert corank.save(small, tmp_path / "file", coder="fixed") <= size
    assert least
