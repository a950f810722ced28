"""Plans carried out: what is reported is what the layer does."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from corank.calibration import Context, Samples, collect, collect_gradients
from corank.codecs import Uniform
from corank.coding.layer import code_layer
from corank.coding.plan import code_plan
from corank.errors import ConfigError
from corank.layers import CodedLayer, prepare
from corank.plan import LayerPlan, Plan
from corank.rounding import Gptq
from corank.statistics import Gram, LayerStatistics, OutputGradient

PLANS = {
    "nearest": LayerPlan(Uniform(3)),
    "paper": LayerPlan(Uniform(3), rank=3),
    "gptq": LayerPlan(Uniform(2), Gptq()),
    "output": LayerPlan(Uniform(2), Gptq(), 2, 4, "output"),
    "rounds": LayerPlan(Uniform(2), Gptq(), 3, 8, "output", 4),
    "loss": LayerPlan(Uniform(2, range="mse"), Gptq(), 3, 8, "loss", 3),
    "bias": LayerPlan(Uniform(2), Gptq(), 2, 8, "output", 2, True),
}


def layer_data(groups: int = 1, rows: int = 8, columns: int = 18) -> tuple[Tensor, Tensor, Tensor, LayerStatistics]:
    """Weight, bias, inputs and their statistics."""
    inputs = torch.randn(groups, 400, columns) @ torch.randn(groups, columns, columns) + 0.5
    gram, gradient = Gram(groups, columns), OutputGradient(groups, rows)
    gram.update(inputs, 1)
    gradient.update(torch.randn(groups, 400, rows), 1)
    weight = torch.randn(groups, rows, columns)
    return weight, torch.randn(groups * rows), inputs, {Gram: gram, OutputGradient: gradient}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("with_bias", [False, True])
def test_reported_error_is_the_measured_one(name: str, groups: int, with_bias: bool) -> None:
    weight, bias, inputs, statistics = layer_data(groups)
    result = code_layer(weight, bias if with_bias else None, PLANS[name], statistics)
    before = inputs @ weight.transpose(1, 2)
    after = inputs @ result.code.compose().reshape(weight.shape).transpose(1, 2)
    if with_bias:
        assert result.bias is not None
        before = before + bias.reshape(groups, 1, -1)
        after = after + result.bias.reshape(groups, 1, -1)
    else:
        assert result.bias is None
    relative = float((before - after).square().mean() / before.square().mean())
    assert result.relative_output_error == pytest.approx(relative, rel=1e-2, abs=1e-5)


def test_each_step_loses_less() -> None:
    weight, bias, _, statistics = layer_data()
    error = {
        name: code_layer(weight, bias, replace(PLANS[name], codec=Uniform(2)), statistics).relative_output_error
        for name in ("nearest", "gptq", "output", "rounds")
    }
    assert error["rounds"] <= error["gptq"] < error["nearest"]
    assert error["output"] < error["gptq"]


def test_rounds_keep_the_best() -> None:
    weight, bias, _, statistics = layer_data()
    errors = [
        code_layer(weight, bias, replace(PLANS["rounds"], rounds=rounds), statistics).relative_output_error
        for rounds in (1, 2, 4, 8)
    ]
    assert all(later <= earlier * (1 + 1e-3) for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < errors[0]


def test_bias_correction_takes_up_the_mean_error() -> None:
    weight, bias, inputs, statistics = layer_data()
    plan = PLANS["bias"]
    result = code_layer(weight, bias, plan, statistics)
    assert result.bias is not None
    before = (inputs @ weight.transpose(1, 2)).flatten(0, 1) + bias
    after = (inputs[0] @ result.code.compose().T) + result.bias
    mean = (before - after).mean(0).abs()
    assert float(mean.max()) < 1e-3 * float(before.abs().mean()) + 2e-3
    without = code_layer(weight, bias, replace(plan, bias_correction=False), statistics)
    assert result.relative_output_error < without.relative_output_error
    assert torch.equal(result.bias, result.bias.half().float())


def test_rank_is_cut_to_what_the_layer_can_use() -> None:
    weight, bias, _, statistics = layer_data(1, 8, 18)
    wide = code_layer(weight, bias, replace(PLANS["paper"], rank=1000), statistics)
    assert wide.code.adapter is not None and wide.code.adapter.rank == 8
    depthwise = torch.randn(18, 1, 9)
    gram = Gram(18, 9)
    gram.update(torch.randn(18, 50, 9), 1)
    assert code_layer(depthwise, None, PLANS["paper"], {Gram: gram}).code.adapter is None


def test_full_rank_in_eight_bits_is_nearly_the_float_layer() -> None:
    weight, bias, _, statistics = layer_data()
    for fit in ("svd", "output", "loss"):
        result = code_layer(weight, bias, LayerPlan(Uniform(4), rank=8, fit=fit), statistics)
        assert result.relative_output_error < 1e-3


def model_and_samples() -> tuple[nn.Module, Samples]:
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 2, 2),
        nn.Flatten(),
        nn.Linear(4 * 64, 5),
    )
    return model.eval(), Samples.of(torch.randn(20, 2, 6, 6), 20, 8)


def test_code_plan_replaces_the_planned_layers() -> None:
    model, samples = model_and_samples()
    prepared = prepare(model, lambda net: net(samples.first(4)))
    statistics: dict[str, LayerStatistics] = dict(collect(prepared.model, prepared.targets, samples))
    gradients = collect_gradients(prepared.model, prepared.targets, samples)
    statistics = {name: {**found, OutputGradient: gradients[name]} for name, found in statistics.items()}
    layers = {name: replace(PLANS["loss"], codec=Uniform(6)) for name in prepared.targets}
    layers["3"] = LayerPlan(None)
    told: list[int] = []
    context = Context(prepared, samples, progress=lambda _, done, total: told.append(done * 10 + total))
    results = code_plan(Plan(layers), statistics, context)
    assert list(results) == ["0", "5", "7"] and told == [13, 23, 33]
    for name, layer in prepared.model.named_children():
        assert isinstance(layer, CodedLayer) == (name in results)
    batch = samples.batches[0]
    with torch.no_grad():
        expected, given = model(batch), prepared.model(batch)
    assert float((expected - given).norm() / expected.norm()) < 0.1
    for name, result in results.items():
        layer = prepared.model.get_submodule(name)
        assert isinstance(layer, CodedLayer)
        assert torch.equal(layer.code().compose(), result.code.compose())
        assert layer.bias is not None and torch.equal(layer.bias, result.bias)


def test_errors_name_the_layer() -> None:
    model, samples = model_and_samples()
    prepared = prepare(model, lambda net: net(samples.first(4)))
    statistics = {
        name: {Gram: found[Gram]} for name, found in collect(prepared.model, prepared.targets, samples).items()
    }
    with pytest.raises(KeyError, match="OutputGradient") as caught:
        code_plan(Plan({"0": PLANS["loss"]}), statistics, Context(prepared, samples))
    assert "while coding layer '0'" in caught.value.__notes__
    prepared.targets["3"].get_parameter("weight").data.fill_(float("nan"))
    with pytest.raises(ConfigError, match="NaN") as caught:
        code_plan(Plan({"3": PLANS["nearest"]}), statistics, Context(prepared, samples))
    assert "while coding layer '3'" in caught.value.__notes__
