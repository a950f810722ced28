"""The call that trains, whole: where it starts, what it leaves alone, what it gives."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.codecs import Codec, PowerOfTwo, StatsQ, Ternary, Uniform
from corank.errors import ConfigError, DataError
from corank.layers import CodedLayer
from corank.training.inputs import LearnedStepInputs
from corank.training.recipe import Recipe
from corank.training.weights import LearnedStep, StraightThrough


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    layers += [nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    layers += [nn.Conv2d(16, 16, 3, padding=1, bias=True), nn.BatchNorm2d(16), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    with torch.no_grad():
        for module in model:
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(torch.randn(16))  # some of them negative
                module.bias.copy_(torch.randn(16))
        for _ in range(30):
            model(images())
    return model.eval()


def images(count: int = 96) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def relative(given: Tensor, expected: Tensor) -> float:
    return float((given - expected).norm() / expected.norm())


@pytest.mark.parametrize("codec", [StatsQ(2), Ternary(), Uniform(3, range="mse", half=True)], ids=str)
@pytest.mark.parametrize("inputs", [None, 4])
def test_before_the_first_step_it_is_what_quantize_gives(codec: Codec, inputs: int | None) -> None:
    model, data = network(), images()
    quantized = corank.quantize(model, data, codec=codec, budget=0.0, activations=inputs)
    way = LearnedStep(codec) if isinstance(codec, Uniform) else StraightThrough(codec)
    recipe = Recipe(way, None if inputs is None else LearnedStepInputs(inputs), iterations=0)
    trained = corank.train(model, data, recipe)
    for one, other in zip(quantized.modules(), trained.modules(), strict=True):
        if isinstance(one, CodedLayer) and isinstance(other, CodedLayer):
            share = float((one.code().weight.codes == other.code().weight.codes).float().mean())
            assert share == 1.0 if not isinstance(codec, Ternary) else share > 0.98
    if not isinstance(codec, Ternary):
        with torch.no_grad():
            assert relative(trained(data), quantized(data)) < (2e-3 if inputs is None else 2e-2)


def test_the_model_given_is_left_as_it_was() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    corank.train(model, images(), "stats-2bit", iterations=3, batch_size=32)
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert not model.training and all(one.requires_grad for one in model.parameters())


@pytest.mark.parametrize("codec", [StatsQ(2), PowerOfTwo(3, group=-1, power_of_two_scale=True)], ids=str)
def test_norms_fold_where_scales_can_take_them_and_stay_where_not(codec: Codec, tmp_path: Path) -> None:
    way = StraightThrough(codec)
    trained = corank.train(network(), images(), Recipe(way, edge=way, iterations=5, batch_size=32))
    norms = [module for module in trained.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == (0 if isinstance(codec, StatsQ) else 3)
    corank.save(trained, tmp_path / "m.safetensors")
    loaded = corank.load(tmp_path / "m.safetensors", network())
    assert torch.equal(loaded(images()[:8]), trained(images()[:8]))


def test_labels_and_a_loss_of_ones_own() -> None:
    labels = torch.randint(0, 4, (96,), generator=torch.Generator().manual_seed(2))
    recipe = Recipe(StraightThrough(StatsQ(2)), loss="labels", iterations=40, batch_size=48, augment="none")
    trained = corank.train(network(), (images(), labels), recipe)
    assert trained.corank_run.history[-1]["loss"] < trained.corank_run.history[0]["loss"]
    with pytest.raises(DataError, match="labels"):
        corank.train(network(), images(), recipe)
    seen: list[tuple[int, ...]] = []

    def own(output: Tensor, target: Tensor) -> Tensor:
        seen.append(tuple(target.shape))
        return (output - target).square().mean()

    corank.train(network(), images(), "stats-2bit", loss=own, iterations=2, batch_size=16)
    assert seen[-1] == (16, 4)


def test_layers_by_pattern() -> None:
    trained = corank.train(
        network(), images(), "stats-2bit", layers={"3": 4, "6": "float"}, iterations=2, batch_size=32
    )
    plan = trained.corank_run.plan.layers
    assert plan["3"].codec == StatsQ(4) and plan["6"].codec is None and plan["0"].codec == Uniform(8, range="mse")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_another_precision_train_in_float32_and_come_back_in_their_own(dtype: torch.dtype) -> None:
    trained = corank.train(network().to(dtype), images().to(dtype), "stats-2bit", iterations=3, batch_size=32)
    assert trained(images()[:4].to(dtype)).dtype == dtype
    assert trained.corank_run.history[-1]["loss"] > 0


def test_what_cannot_be_is_said_first() -> None:
    with pytest.raises(ConfigError, match="did you mean 'stats-2bit'"):
        corank.train(network(), images(), "stat-2bit")
    with pytest.raises(ConfigError, match="iterations"):
        corank.train(network(), images(), "stats-2bit", iterations=-1)


def test_of_weights_from_scratch_no_error_is_known() -> None:
    """The float network that was given is another one: how far a layer is from its own tells nothing."""
    labels = torch.arange(96) % 4
    recipe = Recipe(
        StraightThrough(StatsQ(2)),
        edge=StraightThrough(Uniform(8)),
        loss="labels",
        start="scratch",
        iterations=2,
        batch_size=16,
    )
    small = corank.train(network(), (images(), labels), recipe)
    errors = [layer.relative_output_error for layer in small.__dict__["corank_run"].layers.values()]
    assert len(errors) == 4 and all(math.isnan(error) for error in errors)
