"""Inputs of one bit: values and gradients against formulas written out, what is stored, and whole files of them."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from fuzzing.artifacts import SAMPLES, sample_inputs, sample_model, with_signs
from fuzzing.files import check_files
from fuzzing.parts import CurrentParts
from torch import Tensor, nn

import corank
from corank.diff import diff
from corank.errors import ArtifactError, ConfigError, ModelError
from corank.export import export_onnx, export_onnx_int8
from corank.inspect import inspect
from corank.layers import BinaryInputs, CodedLayer, InputQuantizer, fit_inputs
from corank.plan import LayerPlan, Plan
from corank.storage.artifact import serialized
from corank.storage.header import read_run

SHIFTS = {"convolution": {"3": 8, "6": 0}, "transposed": {"2": 4}, "activations": {"0": 1, "2": 8}, "half": {"4": 0}}


def shapes(name: str) -> dict[str, int]:
    """How many shifts each layer of the sample gets, its channels looked up."""
    model = sample_model(SAMPLES[name])
    found = {}
    for layer, count in SHIFTS[name].items():
        module = model.get_submodule(layer)
        assert isinstance(module, CodedLayer)
        found[layer] = module.geometry.channels if count > 1 else count
    return found


def sample(name: str) -> nn.Module:
    return with_signs(sample_model(SAMPLES[name]), shapes(name))


def test_values_are_the_sign_times_the_step() -> None:
    inputs = torch.tensor([[-2.0, -0.0, 0.0, 1e-45], [3.0, 0.5, -1e-45, 0.25]])
    given = BinaryInputs(torch.tensor(0.5))(inputs)
    assert given.tolist() == [[-0.5, 0.5, 0.5, 0.5], [0.5, 0.5, -0.5, 0.5]]  # sign(0) = +1
    shift = torch.tensor([0.0, 0.5, -1e-45, 0.25])
    assert BinaryInputs(torch.tensor(2.0), shift)(inputs).tolist() == [[-2, -2, 2, -2], [2, 2, 2, 2]]
    images = torch.randn(2, 3, 4, 4)
    shift = torch.tensor([0.3, -0.3, 0.0])[:, None, None]
    expected = torch.where(images - shift < 0, -0.7, 0.7)
    assert torch.equal(BinaryInputs(torch.tensor(0.7), shift)(images), expected)


@pytest.mark.parametrize("gradient", ["polynomial", "clip"])
def test_gradients_are_the_formulas(gradient: str) -> None:
    inputs = torch.cat([torch.randn(500), torch.tensor([0.0, 0.4, -0.4, 0.9, 0.1])])[:, None].repeat(1, 3)
    inputs.requires_grad_(True)
    step, shift = torch.tensor(0.5, requires_grad=True), torch.tensor([0.0, 0.4, -1.0], requires_grad=True)
    weights = torch.randn_like(inputs)
    (BinaryInputs(step, shift, gradient)(inputs) * weights).sum().backward()
    expected, moved = torch.zeros_like(inputs), 0.0
    for row in range(len(inputs)):
        for channel in range(3):
            away = float((inputs[row, channel] - shift[channel]).detach()) / 0.5
            slope = 0.0 if abs(away) > 1 else 2 - 2 * abs(away) if gradient == "polynomial" else 1.0
            expected[row, channel] = slope * weights[row, channel]
            moved += float(weights[row, channel]) * (1 if away >= 0 else -1)
    assert inputs.grad is not None and shift.grad is not None and step.grad is not None
    torch.testing.assert_close(inputs.grad, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(shift.grad, -expected.sum(0), rtol=1e-4, atol=1e-4)
    assert float(step.grad) == pytest.approx(moved, rel=1e-4, abs=1e-3)


def test_values_with_and_without_gradients_are_the_same() -> None:
    inputs, rounds = torch.randn(2, 5, 7), BinaryInputs(torch.tensor(0.3), torch.randn(5, 1))
    assert torch.equal(rounds(inputs.clone().requires_grad_(True)), rounds(inputs))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_stay(dtype: torch.dtype) -> None:
    inputs = torch.randn(6, 4).to(dtype)
    rounds = BinaryInputs(torch.tensor(0.25, requires_grad=True), torch.zeros(4))
    assert rounds(inputs).dtype == dtype
    inputs.requires_grad_(True)
    rounds(inputs).sum().backward()
    assert inputs.grad is not None and inputs.grad.dtype == dtype


def test_a_start_tells_inputs_apart() -> None:
    signed = torch.randn(1000)
    found = fit_inputs(signed, float(signed.min()), float(signed.max()), 1)
    assert isinstance(found, BinaryInputs) and found.shift is None
    assert float(found.step) == pytest.approx(float(signed.abs().mean()), rel=1e-3)
    positive = signed.relu()
    found = fit_inputs(positive, 0.0, float(positive.max()), 1)
    assert isinstance(found, BinaryInputs) and found.shift is not None
    assert float(found.shift) == pytest.approx(float(positive.mean()), rel=1e-3)
    assert len(found(positive).unique()) == 2
    assert float(fit_inputs(torch.zeros(5), 0.0, 0.0, 1).step) > 0


@pytest.mark.parametrize("name", SHIFTS)
def test_a_layer_computes_with_the_signs_of_its_inputs(name: str) -> None:
    model = sample(name)
    for layer in shapes(name):
        module = model.get_submodule(layer)
        assert isinstance(module, CodedLayer)
        given = torch.randn(2, module.geometry.channels, *(6 for _ in module.geometry.kernel)).to(module.weight.dtype)
        rounds = module.input_quantizer()
        assert isinstance(rounds, BinaryInputs) and rounds.step > 0
        with torch.no_grad():
            assert torch.equal(module(given), module.to_float()(rounds(given)))
            assert torch.equal(copy.deepcopy(module)(given), module(given))
            assert torch.equal(pickle.loads(pickle.dumps(module))(given), module(given))
        assert isinstance(module.code().inputs, BinaryInputs)


@pytest.mark.parametrize("name", SHIFTS)
def test_a_file_gives_the_same_bits(name: str, tmp_path: Path) -> None:
    model, path = sample(name), tmp_path / "model.safetensors"
    inputs = sample_inputs(SAMPLES[name])
    corank.save(model, path)
    with torch.no_grad():
        again = corank.load(path, SAMPLES[name].network(), dtype=SAMPLES[name].dtype)
        assert torch.equal(again(inputs), model(inputs))
    assert serialized(again, "fixed") == serialized(model, "fixed")
    told = {layer["name"]: layer for layer in inspect(path, codes=True)["layers"]}
    for number, layer in enumerate(shapes(name)):
        assert told[layer]["inputs"] == 1
        assert told[layer]["input_step"] == 0.5 + number and told[layer]["input_offset"] is None
    assert all(layer["equal"] for layer in diff(path, path)["layers"])
    others = shapes(name) | {next(iter(SHIFTS[name])): 0}
    corank.save(with_signs(sample_model(SAMPLES[name]), others), tmp_path / "other.safetensors")
    different = diff(path, tmp_path / "other.safetensors")["layers"]
    assert all(layer["equal"] for layer in different) == (others == shapes(name))


def test_a_plan_says_shifts_only_where_there_are_any(tmp_path: Path) -> None:
    plain, shifted = LayerPlan(None), LayerPlan(None, inputs=1, input_shifts=16)
    assert "input_shifts" not in json.dumps(Plan({"0": plain}).to_json())
    plan = Plan({"0": plain, "1": shifted})
    assert Plan.from_json(plan.to_json()) == plan
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan


@pytest.mark.parametrize("value", [-1, 1 << 31, True, 2.0, None, "3"])
def test_shifts_that_no_plan_has(value: object) -> None:
    with pytest.raises(ConfigError, match="input_shifts"):
        LayerPlan(None, inputs=1, input_shifts=value)  # pyright: ignore[reportArgumentType]


def test_inputs_in_float_have_no_shifts() -> None:
    with pytest.raises(ConfigError, match="inputs in float are not shifted"):
        LayerPlan(None, inputs=None, input_shifts=3)
    layer = next(one for one in sample_model(SAMPLES["activations"]).modules() if isinstance(one, CodedLayer))
    with pytest.raises(ConfigError, match="3 shifts of inputs of 8 bits"):
        layer.keep_shifts(3)
    with pytest.raises(ConfigError, match="gradient='straight'"):
        BinaryInputs(torch.tensor(1.0), gradient="straight")


@pytest.mark.parametrize("count", [2, 5, (1 << 31) - 1])
def test_a_file_with_another_number_of_shifts_is_refused(count: int, tmp_path: Path) -> None:
    parts = CurrentParts.of(serialized(sample("activations"), "fixed"))
    header = parts.long_header()
    plan = Plan.from_json(header["plan"])
    layers = {**plan.layers, "2": LayerPlan(plan.layers["2"].codec, inputs=1, input_shifts=count)}
    run = read_run({**header, "plan": Plan(layers).to_json()})
    assert run.layers["2"].slots(run.plan.layers["2"])["input_shift"].count == count
    model = sample("activations")
    model.__dict__["corank_run"] = run
    layer = model.get_submodule("2")
    assert isinstance(layer, CodedLayer)
    layer.shifts = count  # a writer that lies alike in header and numbers, as far as memory goes
    layer._buffers["input_shift"] = torch.zeros(min(count, 100), dtype=torch.float16)
    (tmp_path / "forged").write_bytes(serialized(model, "fixed"))
    with pytest.raises(ArtifactError, match=r"shifts of them in the file|needs"):
        corank.load(tmp_path / "forged", SAMPLES["activations"].network())


def test_a_step_or_shift_that_is_no_number_is_refused(tmp_path: Path) -> None:
    for slot, value, said in (("input_step", 0.0, "have a step of"), ("input_shift", float("inf"), "is not finite")):
        model = sample("activations")
        layer = model.get_submodule("2")
        assert isinstance(layer, CodedLayer)
        layer._buffers[slot] = torch.full_like(layer.get_buffer(slot), value)
        (tmp_path / "forged").write_bytes(serialized(model, "fixed"))
        with pytest.raises(ArtifactError, match=said):
            corank.load(tmp_path / "forged", SAMPLES["activations"].network())


@pytest.mark.parametrize("name", ["convolution", "activations"])
def test_every_mutated_file_is_refused_or_a_sound_model(name: str) -> None:
    data = serialized(sample(name), "fixed")
    found = check_files(data, SAMPLES[name].network(), sample_inputs(SAMPLES[name]), 60)
    assert found["loaded"] > 0 and len(found) > 8


def test_quantize_says_that_such_inputs_are_trained() -> None:
    network, inputs = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(8, 4)
    with pytest.raises(ConfigError, match="inputs of 1 bit are trained: corank train"):
        corank.quantize(network, inputs, bits=4, activations=1)
    layer = LayerPlan(corank.quantize(network, inputs, bits=4).corank_run.plan.layers["0"].codec, inputs=1)  # pyright: ignore
    with pytest.raises(ConfigError, match="layer '0': inputs of 1 bit are trained"):
        corank.quantize(network, inputs, plan=Plan({"0": layer}))
    with pytest.raises(ConfigError, match="layer '2': inputs of 1 bit are trained"):
        corank.quantize(network, inputs, bits=4, layers={"2": layer})


@pytest.mark.parametrize("name", ["convolution", "transposed", "activations"])
@pytest.mark.parametrize("dense", [False, True])
def test_onnx_keeps_the_signs(name: str, dense: bool, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    inputs = sample_inputs(SAMPLES[name], 2).float() + 0.37
    result = export_onnx(sample(name), tmp_path / "model.onnx", inputs, dense=dense)
    assert result.relative_difference is not None and result.relative_difference < 1e-4
    kinds = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert kinds.count("GreaterOrEqual") == kinds.count("Where") == len(SHIFTS[name])


def test_int8_refuses_them(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    with pytest.raises(ModelError, match="takes the sign of its inputs, which int8 graphs have no place for"):
        export_onnx_int8(sample("convolution"), tmp_path / "model.onnx", sample_inputs(SAMPLES["convolution"]).float())
    assert not list(tmp_path.iterdir())


def test_a_traced_layer_gives_the_same() -> None:
    model, inputs = sample("activations").eval(), sample_inputs(SAMPLES["activations"]).float()
    for module in model.modules():
        if isinstance(module, CodedLayer):
            module._cache = module._feed = None
    program = torch.export.export(model, (inputs,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(inputs), model(inputs))


def test_a_quantizer_of_more_bits_is_what_it_was() -> None:
    rounds: InputQuantizer = InputQuantizer(4, torch.tensor(0.5), 3)
    stored: dict[str, Tensor] = rounds.tensors()
    assert list(stored) == ["input_step", "input_offset"] and rounds.shifts == 0
    assert stored["input_step"].dtype == torch.float16 and int(stored["input_offset"]) == 3
