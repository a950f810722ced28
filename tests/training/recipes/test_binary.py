"""The binary recipe, and its parts together in a network: trained by hand, converted, saved, loaded."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bench.models import Block
from torch import Tensor, nn

import corank
from corank.codecs import Binary
from corank.coding.layer import LayerResult
from corank.errors import ConfigError, TrainingError
from corank.layers import (
    BinaryInputs,
    CodedLayer,
    CodedLayerState,
    RPReLU,
    apply_structure,
    coded_class,
    find_structure,
    replace_module,
)
from corank.matrix import Geometry
from corank.plan import LayerPlan, Plan
from corank.storage.artifact import serialized
from corank.storage.model_record import ATTRIBUTE, LayerRecord, ModelRecord, run_of
from corank.training import finish
from corank.training.callbacks import Relax
from corank.training.inputs import InputStart, LearnedStepInputs, SignInputs, TrainableInputs
from corank.training.recipe import Recipe
from corank.training.recipes import RECIPES
from corank.training.state import TrainedLayer, parametrized
from corank.training.weights import Relaxed, StraightThrough, WeightStart
from corank.verbs.train import train


def test_the_recipe_is_the_published_parts() -> None:
    recipe = RECIPES["binary"](1, 1)
    assert recipe.weights == Relaxed(StraightThrough(Binary())) and recipe.inputs == SignInputs()
    assert recipe.callbacks == (Relax(),)  # without it the blend would stay as it starts
    assert recipe.structure == ("rprelu", "shortcut") and recipe.edge_inputs == LearnedStepInputs(8)
    for one in (recipe, RECIPES["binary"](1, 4), RECIPES["binary"](1, None)):
        assert Recipe.from_json(one.to_json()) == one
    assert RECIPES["binary"](1, 4).structure == () and RECIPES["binary"](1, None).inputs is None
    with pytest.raises(ConfigError, match="binary weights have 1 bit"):
        RECIPES["binary"](2, 1)


def test_structure_that_no_recipe_has() -> None:
    for wrong in (("prelu",), ["rprelu"], "rprelu"):
        with pytest.raises(ConfigError, match="a tuple of 'products', 'query-key', 'rprelu', 'shortcut'"):
            Recipe(structure=wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="a list of names"):
        Recipe.from_json({"structure": "rprelu"})


def net() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), Block(8, 16, 2), Block(16, 16, 1), nn.Flatten(), nn.Linear(256, 4)
    )


def rounding(inputs: TrainableInputs) -> Callable[..., Tensor]:
    return lambda _, args: inputs(args[0])


def trained(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, TrainedLayer]:
    layers: dict[str, TrainedLayer] = {}
    recipe = RECIPES["binary"](1, 1)
    assert recipe.weights is not None and recipe.inputs is not None
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d) and name != "0"]
    for name in names:
        module = network.get_submodule(name)
        geometry, weight = Geometry.of(module), module.get_parameter("weight").detach()
        running, _ = recipe.weights.start(WeightStart(geometry.to_matrix(weight).flatten(0, 1)))
        inputs = recipe.inputs.start(InputStart(BinaryInputs(torch.tensor(0.7)), 0.7, geometry))
        layers[name] = TrainedLayer(module, geometry, running, inputs)
        parametrized(layers[name])
        module.register_forward_pre_hook(rounding(inputs))
    parameters = [*network.parameters(), *(one for layer in layers.values() for one in layer.inputs.parameters())]  # pyright: ignore
    optimizer = torch.optim.Adam(parameters, 5e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    return layers


def test_what_trained_is_what_loads(tmp_path: Path) -> None:
    network, images, labels = net(), torch.randn(32, 3, 8, 8), torch.randint(0, 4, (32,))
    structure = find_structure(network, lambda one: one(images), ("rprelu", "shortcut"))
    assert [entry["module"] for entry in structure if entry["kind"] == "shortcut"] == ["2.conv2", "3.conv2"]
    apply_structure(network, structure)
    before = {name: tensor.detach().clone() for name, tensor in network.named_parameters()}
    layers = trained(network, images, labels)
    network.eval()
    with torch.no_grad():
        expected = network(images)
    plans, records, result = {}, {}, copy.deepcopy(net())
    apply_structure(result, structure)
    state = {name: t for name, t in network.state_dict().items() if "parametrizations" not in name}
    result.load_state_dict(state, strict=False)
    for name, layer in layers.items():
        assert layer.weight is not None and layer.inputs is not None
        code = CodedLayerState(Binary(), layer.weight.coded(layer.matrix), None, 8, layer.inputs.quantizer())
        assert isinstance(code.inputs, BinaryInputs) and code.inputs.shift is not None
        assert bool(code.inputs.shift.any())  # learned
        plain = result.get_submodule(name)
        made = coded_class(plain)(plain, Binary(), 0, 8, 1).keep_shifts(code.inputs.shifts)
        made.fill(code, None)
        replace_module(result, plain, made)
        plans[name] = LayerPlan(Binary(), inputs=1, input_shifts=code.inputs.shifts)
        records[name] = LayerRecord(layer.geometry.matrix_shape, 0.5)
    for module in result.modules():
        if isinstance(module, RPReLU):
            module.settle()
    record = ModelRecord(Plan(plans), records, structure=structure)
    result.eval().__dict__[ATTRIBUTE] = record
    with torch.no_grad():
        torch.testing.assert_close(result(images), expected, rtol=1e-2, atol=1e-2)  # scales are fp16 now
        corank.save(result, tmp_path / "model.safetensors")
        again = corank.load(tmp_path / "model.safetensors", net())
        assert torch.equal(again(images), result(images))
    assert sum(isinstance(one, CodedLayer) for one in again.modules()) == 4
    now = dict(network.named_parameters())
    moved = [name for name, tensor in before.items() if name in now and not torch.equal(tensor, now[name])]
    assert any("slope" in name for name in moved) and any("lift" in name for name in moved)


@pytest.mark.parametrize("recipe", ["binary-w1a1", "binary-w1a4", "binary-1bit"])
def test_a_few_steps_end_in_a_file_that_gives_the_same(recipe: str, tmp_path: Path) -> None:
    network, images = net(), torch.randn(48, 3, 8, 8)
    model = train(network, images, recipe, iterations=4, batch_size=16)
    run = run_of(model)
    signs = {name: one.input_shifts for name, one in run.plan.layers.items() if one.inputs == 1}
    if recipe == "binary-w1a1":
        assert signs == {"2.conv1": 8, "2.conv2.layer": 16, "3.conv1": 16, "3.conv2.layer": 16}
        assert {run.plan.layers[name].inputs for name in ("0", "5")} == {8}
        assert sorted(entry["kind"] for entry in run.structure) == ["rprelu"] * 3 + ["shortcut"] * 2
    else:
        assert not signs and run.structure == ()
    with torch.no_grad():
        corank.save(model, tmp_path / "model.safetensors")
        assert torch.equal(corank.load(tmp_path / "model.safetensors", net())(images), model(images))
    assert not any(isinstance(module, RPReLU) for module in network.modules())


def test_a_killed_run_goes_on_to_the_same_file(tmp_path: Path) -> None:
    images = torch.randn(32, 3, 8, 8)
    whole = train(net(), images, "binary-w1a1", iterations=3, batch_size=16)

    def stop(what: str, done: int, total: int) -> None:
        if what.startswith("training"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(net(), images, "binary-w1a1", iterations=3, batch_size=16, checkpoint=tmp_path, progress=stop)
    again = train(net(), images, "binary-w1a1", iterations=3, batch_size=16, checkpoint=tmp_path)
    assert serialized(again) == serialized(whole)


def test_a_layer_that_computes_something_else_than_trained_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = finish._result

    def turned(layer: TrainedLayer, *rest: Any) -> LayerResult:
        found = whole(layer, *rest)
        if layer.geometry.shape[0] != 16:
            return found
        inputs = found.code.inputs
        assert isinstance(inputs, BinaryInputs)
        return replace(found, code=replace(found.code, inputs=replace(inputs, step=2 * inputs.step)))

    monkeypatch.setattr(finish, "_result", turned)
    with pytest.raises(TrainingError, match=r"the coded layer '2.conv1''s outputs differ from those of the layer"):
        train(net(), torch.randn(16, 3, 8, 8), "binary-w1a1", iterations=1, batch_size=16)
