"""Rates found for a size, from the public call to the file, on the network that ships with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import corank
from corank import BlockReconstruction, BudgetError, ConfigError, Refinement
from corank.checkpoint import Checkpoint
from corank.codecs import RateUniform, Trellis
from corank.data import load as load_images
from corank.models.digits import digits_net
from corank.storage.artifact import serialized
from corank.storage.model_record import run_of


@pytest.fixture(scope="module")
def images() -> Tensor:
    return load_images("digits:train").tensor()[:96]


def rates(model: nn.Module) -> dict[str, float]:
    plans = run_of(model).plan.coded()
    return {name: plan.codec.most for name, plan in plans.items() if isinstance(plan.codec, RateUniform)}


@pytest.mark.parametrize("size", [25_000, "45.5KB", 60_000])
def test_the_file_fits_and_little_is_left_over(images: Tensor, tmp_path: Path, size: int | str) -> None:
    model = corank.quantize(digits_net(), images, size=size, rate="auto")
    limit = 45_500 if isinstance(size, str) else size
    path = tmp_path / "model.safetensors"
    assert 0.985 * limit < corank.save(model, path) <= limit
    again = corank.load(path, digits_net)
    with torch.no_grad():
        assert torch.equal(again(images), model(images))


def test_more_bytes_are_spent_on_higher_rates_and_come_nearer(images: Tensor) -> None:
    test = load_images("digits:test")
    found = [corank.quantize(digits_net(), images, size=size, rate="auto") for size in ("23KB", "60KB")]
    low, high = (rates(model) for model in found)
    assert all(high[name] >= low[name] for name in low) and sum(high.values()) > sum(low.values()) + 3
    few, many = (corank.evaluate(model, test, digits_net()).kl for model in found)
    assert few is not None and many is not None and many < few
    assert many < 0.02 < few  # at the floor much is lost, and little where there is room
    fixed = corank.evaluate(corank.quantize(digits_net(), images, size="60KB", search="cora"), test, digits_net()).kl
    assert fixed is not None and many < fixed


def test_a_size_alone_is_met_by_a_rate() -> None:
    torch.manual_seed(0)
    first, last = nn.Conv2d(3, 16, 3), nn.Linear(16, 5)
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
    model = nn.Sequential(first, nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), *pooled).eval()
    images = torch.randn(24, 3, 8, 8)
    alone, asked = (corank.quantize(model, images, size=1900, rate=rate) for rate in (None, "auto"))
    assert all(torch.equal(value, asked.state_dict()[name]) for name, value in alone.state_dict().items())
    others: list[dict[str, Any]] = [{"search": "uniform"}, {"preset": "nearest"}, {"bits": 4}, {"codec": "uniform"}]
    for fixed in others:
        plan = run_of(corank.quantize(model, images, size=2600, **fixed)).plan
        assert {type(layer.codec) for layer in plan.coded().values()} == {corank.Uniform}, fixed


def test_a_size_with_a_codec_that_has_a_rate_is_met_by_its_rate() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(32, 5)
    ).eval()
    small = corank.quantize(model, torch.randn(24, 3, 8, 8), size=1950, codec="trellis")
    assert len(serialized(small)) <= 1950
    kinds = [type(plan.codec) for plan in run_of(small).plan.coded().values()]
    assert kinds == [RateUniform, Trellis, Trellis, RateUniform]


def test_refined_files_fit_as_well_and_the_record_counts_the_steps(images: Tensor) -> None:
    how = Refinement(iterations=3, batch_size=16)
    model = corank.quantize(digits_net(), images, size="40KB", rate="auto", refinement=how)
    assert len(serialized(model)) <= 40_000 and run_of(model).iterations == 3


def test_adapters_and_exceptions_are_counted_and_left_alone(images: Tensor) -> None:
    layers: dict[str, Any] = {"stage1.0.conv1": 4, "stage1.0.conv2": "float"}
    model = corank.quantize(digits_net(), images, size="60KB", rate="auto", layers=layers, budget=0.2)
    assert rates(model)["stage1.0.conv1"] == 4 and "stage1.0.conv2" not in run_of(model).layers
    assert any(plan.rank for plan in run_of(model).plan.coded().values())
    assert len(serialized(model)) <= 60_000


def test_a_size_for_every_bit_there_is_leaves_room(images: Tensor) -> None:
    model = corank.quantize(digits_net(), images, size="1MB", rate="auto")
    found = list(rates(model).values())
    assert found[0] == found[-1] == 6.0 and max(found) > 7 and len(serialized(model)) < 200_000


def test_an_interrupted_run_goes_on_through_the_same_attempts(
    images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = corank.quantize(digits_net(), images, size="30KB", rate="auto")
    saved: list[str] = []
    keep = Checkpoint.save

    def failing(self: Checkpoint, step: str, *rest: Any) -> None:
        saved.append(step)
        if len(saved) == 24:  # in the second attempt
            raise KeyboardInterrupt
        keep(self, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", failing)
        with pytest.raises(KeyboardInterrupt):
            corank.quantize(digits_net(), images, size="30KB", rate="auto", checkpoint=tmp_path)
    assert any(path.name.startswith("attempt-1-layer-") for path in tmp_path.iterdir())
    resumed = corank.quantize(digits_net(), images, size="30KB", rate="auto", checkpoint=tmp_path)
    assert serialized(resumed) == serialized(straight)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rate": "auto"}, "give one"),
        ({"rate": "most"}, "or 'auto'"),
        ({"rate": 2.0, "size": "60KB"}, "rate and size"),
        ({"rate": "auto", "size": "60KB", "bits": 2}, "rate and bits"),
        ({"rate": "auto", "size": "60KB", "refinement": Refinement(code_rate=0.1)}, "code_rate=0"),
        ({"rate": "auto", "size": "60KB", "refinement": BlockReconstruction(iterations=1)}, "moves them"),
        ({"rate": "auto", "size": "much"}, "1.2MB"),
        ({"rate": "auto", "size": "9" * 320 + "GB"}, "1.2MB"),
    ],
)
def test_refusals(images: Tensor, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        corank.quantize(digits_net(), images, **given)


@pytest.mark.parametrize(
    ("size", "said"),
    [("7KB", r"at 0\.1 bits a weight, the lowest rate, it takes 1\d{4}"), ("1.5KB", "what has no rate")],
)
def test_a_size_that_cannot_be_says_what_it_takes(images: Tensor, size: str, said: str) -> None:
    model = digits_net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(BudgetError, match=said):
        corank.quantize(model, images, size=size, rate="auto")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_network_of_edges_mostly_fits_down_to_the_lowest_rate() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 10))
    inputs = torch.randn(64, 256)
    least = len(serialized(corank.quantize(model, inputs, rate=0.1)))
    for size in (least + 400, 24_000):
        found = corank.quantize(model, inputs, size=size, rate="auto")
        assert 0.98 * size < len(serialized(found)) <= size
        first, inner, last = rates(found).values()
        assert first == last == pytest.approx(inner + 4, abs=0.002)


def test_layers_that_have_no_rate_leave_nothing_to_find(images: Tensor) -> None:
    with pytest.raises(ConfigError, match="leaves no layer"):
        corank.quantize(digits_net(), images, size="60KB", rate="auto", layers={"*": "uniform:4"})


@pytest.mark.parametrize("rate", [2.0, "auto"])
def test_eight_bits_are_eight_bits_and_widths_are_not_searched(images: Tensor, rate: float | str) -> None:
    size = "60KB" if rate == "auto" else None
    layers: dict[str, Any] = {"stage1.0.conv1": 8}
    assert rates(corank.quantize(digits_net(), images, size=size, rate=rate, layers=layers))["stage1.0.conv1"] == 8
    with pytest.raises(ConfigError, match="leave search out"):
        corank.quantize(digits_net(), images, size=size, rate=rate, search="joint")
