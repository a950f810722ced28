"""OFQ whole: what the recipe says, and a vision transformer from its training through the file to other runtimes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from layers.tiny_vit import hf_vit, timm_vit
from torch import Tensor, nn

import corank
from corank.codecs import ScalarCodebook, StatsQ
from corank.errors import ConfigError, ModelError
from corank.export import export_onnx, export_onnx_int8
from corank.layers import CodedLayer, InputQuantizer, QueryKeyAttention, RoundedOperand
from corank.storage.artifact import serialized
from corank.storage.model_record import run_of
from corank.training.callbacks import Callback, Confidence
from corank.training.callbacks.confidence import is_undecided
from corank.training.inputs import LearnedStepInputs
from corank.training.recipe import Optimizer, Recipe
from corank.training.recipes import RECIPES
from corank.training.state import TrainingState
from corank.training.weights import StraightThrough

IMAGES = torch.randn(48, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float32)
ASKED: dict[str, Any] = {"iterations": 6, "batch_size": 12, "samples": 16}


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    return corank.train(timm_vit(depth=1), IMAGES, "ofq-w3a4", **ASKED)


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_the_recipe(bits: int) -> None:
    recipe = RECIPES["ofq"](bits, bits)
    assert recipe.weights == StraightThrough(StatsQ(bits)) and recipe.inputs == LearnedStepInputs(bits, shift=True)
    assert recipe.structure == ("query-key",) and Confidence(0.005, from_share=0.9) in recipe.callbacks
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert RECIPES["ofq"](bits, None).inputs is None
    for asked in ((1, 4), (2, 1), (1, None)):
        with pytest.raises(ConfigError, match="ofq takes 2 bits or more"):
            RECIPES["ofq"](*asked)


def test_a_file_makes_it_anew_in_the_original_class(trained: nn.Module, tmp_path: Path) -> None:
    size = corank.save(trained, tmp_path / "small.safetensors")
    given = timm_vit(depth=1)
    names = list(given.state_dict())
    with torch.no_grad():
        again = corank.load(tmp_path / "small.safetensors", given)
        assert torch.equal(again(IMAGES), trained(IMAGES))
    assert list(given.state_dict()) == names and serialized(again) == serialized(trained)
    found = corank.inspect(tmp_path / "small.safetensors")
    assert found["structure"] == [{"kind": "query-key", "module": "blocks.0.attn", "bits": 4}]
    assert found["stored_bytes"] == size
    assert {one["name"]: one["shape"] for one in found["layers"]}["blocks.0.attn.query_key"] == [72, 24]
    attention = again.get_submodule("blocks.0.attn")
    assert isinstance(attention, QueryKeyAttention) and isinstance(attention.query_key, CodedLayer)
    rounds = attention.query_key.input_quantizer()
    assert isinstance(rounds, InputQuantizer) and rounds.bits == 4 and rounds.shifts == 24


def test_its_further_weights_are_counted(trained: nn.Module) -> None:
    plain = corank.train(timm_vit(depth=1), IMAGES, RECIPES["ofq"](3, 4).replaced(structure=("products",)), **ASKED)
    layers, others = run_of(trained).layers, run_of(plain).layers
    assert sum(one.weights for one in layers.values()) - sum(one.weights for one in others.values()) == 24 * 24
    assert len(serialized(trained, "fixed")) > len(serialized(plain, "fixed"))
    assert {name for name in others if "blocks.0.attn" in name} == {
        f"blocks.0.attn.{name}" for name in ("query", "key", "value", "proj")
    }


def test_what_it_computes_is_of_few_bits(trained: nn.Module) -> None:
    seen: dict[str, Tensor] = {}
    operands = {name: one for name, one in trained.named_modules() if isinstance(one, RoundedOperand)}
    assert len(operands) == 4
    for name, one in operands.items():
        one.register_forward_hook(lambda _module, _args, output, name=name: seen.update({name: output}))
    with torch.no_grad():
        copy.deepcopy(trained)(IMAGES[:4])
        trained(IMAGES[:4])
    for name, one in operands.items():
        codes = seen[name] / one.get_buffer("step")
        assert float((codes - codes.round()).abs().amax()) < 1e-4 and len(codes.round().unique()) <= 16
        one._forward_hooks.clear()
    for name, layer in trained.named_modules():
        if name.endswith("query_key") and isinstance(layer, CodedLayer):
            rows = layer.geometry.to_matrix(layer.weight).flatten(0, 1)
            assert all(len(row.unique()) <= 8 and not bool((row == 0).any()) for row in rows)


@dataclass(frozen=True)
class Watching(Callback):
    """Notes which weights of the product moved in each step, and which may have."""

    def gradients_ready(self, state: TrainingState) -> None:
        layer = state.layers["blocks.0.attn.query_key"]
        assert layer.weight is not None
        book: Any = vars(type(layer.weight))["book"](layer.weight, layer.matrix)
        assert isinstance(book, ScalarCodebook)
        state.kept["watching-before"] = layer.latent.detach().clone()
        state.kept["watching-may"] = is_undecided(book, layer.matrix.detach(), 0.05)

    def step_done(self, state: TrainingState) -> None:
        moved = state.layers["blocks.0.attn.query_key"].latent != state.kept.pop("watching-before")
        may = state.kept.pop("watching-may")
        state.measured["moved beyond"] = float((moved & ~may).sum())
        state.measured["moved within"] = float((moved & may).sum())


def test_annealing_holds_the_product_as_it_holds_all_weights() -> None:
    recipe = RECIPES["ofq"](2, 4).replaced(callbacks=(Confidence(0.05, from_share=0.5),))
    recipe = recipe.replaced(optimizer=Optimizer(rate=1e-3, decay=0.1))
    model = corank.train(timm_vit(depth=1), IMAGES, recipe, callbacks=(Watching(),), **ASKED)
    history = run_of(model).history
    assert all(entry["moved beyond"] > 1000 for entry in history[:3])
    assert all(entry["moved beyond"] == 0 and entry["moved within"] > 0 for entry in history[3:])


def test_exports_keep_it_or_say_why_not(trained: nn.Module, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    for dense in (False, True):  # with quantized nodes, and with plain arithmetic as export_openvino has it
        result = export_onnx(trained, tmp_path / "model.onnx", IMAGES[:3], dense=dense, tolerance=1e-4)
        assert result.relative_difference is not None and result.relative_difference < 1e-4
    with pytest.raises(ModelError, match=r"'blocks.0.attn.\w+' shifts each channel of its inputs"):
        export_onnx_int8(trained, tmp_path / "int8.onnx", IMAGES)


def test_transformers_train_as_timm_does(tmp_path: Path) -> None:
    model = corank.train(hf_vit(num_hidden_layers=1), IMAGES, "ofq-w4a4", **ASKED)
    corank.save(model, tmp_path / "small.safetensors")
    with torch.no_grad():
        again = corank.load(tmp_path / "small.safetensors", lambda: hf_vit(num_hidden_layers=1))
        assert torch.equal(again(IMAGES).logits, model(IMAGES).logits)
    assert sum(isinstance(one, QueryKeyAttention) for one in again.modules()) == 1


def test_at_eight_bits_it_is_the_float_network_nearly() -> None:
    network = timm_vit(depth=1)
    model = corank.train(network, IMAGES, "ofq-w8a8", **{**ASKED, "iterations": 0})
    with torch.no_grad():
        apart = (model(IMAGES) - network(IMAGES)).norm() / network(IMAGES).norm()
    assert float(apart) < 0.1


def test_a_network_without_attention_is_refused_and_stays() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 16), nn.Linear(16, 4))
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ModelError, match="has no attention to change; a recipe without 'query-key' trains it"):
        corank.train(network, IMAGES, "ofq-w4a4", **ASKED)
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())
