"""Adapters trained with peft, read back: what they compute, what coding them loses, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import corank
from corank import LayerPlan, Plan, Uniform
from corank.errors import ConfigError, ModelError
from corank.export import export_peft, import_peft, load_peft_base, peft_base
from corank.export.peft import base_name

peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore:Could not find a config file:UserWarning")  # looks for a vocabulary

RANKS = {"0": 2, "3": 1, "5": 0, "8": 2}
GROUPED, EMBEDDED = "10", "11"


def network() -> nn.Module:
    """Convolutions, one of them without an adapter, one grouped, and linear layers, one of them left in float."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(), nn.Conv2d(8, 8, 1), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(32, 12), nn.ReLU(),
        nn.Unflatten(1, (12, 1)), nn.Conv1d(12, 12, 1, groups=2), nn.Flatten(), nn.Linear(12, 4),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def inputs() -> Tensor:
    return torch.randn(32, 1, 10, 10, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def small(inputs: Tensor) -> nn.Module:
    plan = {name: LayerPlan(Uniform(2), rank=rank) for name, rank in RANKS.items()}
    return corank.quantize(network(), inputs, plan=Plan({**plan, "11": LayerPlan(Uniform(4), rank=0)}))


@pytest.fixture
def tuned(small: nn.Module, inputs: Tensor, tmp_path: Path) -> nn.Module:
    """A PeftModel after a few steps on random labels, in evaluation mode."""
    export_peft(small, tmp_path / "exported", inputs)
    base = load_peft_base(tmp_path / "exported", network)
    return trained(peft.PeftModel.from_pretrained(base, str(tmp_path / "exported"), is_trainable=True), inputs)


def trained(model: nn.Module, inputs: Tensor) -> nn.Module:
    labels = torch.arange(len(inputs)) % 4
    optimizer = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], 1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return model.eval()


def difference(given: Tensor, expected: Tensor) -> float:
    return float((given - expected).detach().abs().max() / expected.detach().abs().max())


def product(model: nn.Module, name: str) -> Tensor:
    """The adapter of one layer of a PeftModel, computed by peft itself."""
    layer = model.get_submodule(f"base_model.model.{name}")
    return layer.get_delta_weight("default").detach().flatten(1)  # pyright: ignore


def test_adapters_that_were_not_trained_come_back_bit_for_bit(small: nn.Module, inputs: Tensor, tmp_path: Path) -> None:
    export_peft(small, tmp_path)
    given = import_peft(small, tmp_path)
    assert {name: layer.rank for name, layer in given.layers.items()} == {"0": 2, "3": 1, "8": 2}
    assert all(layer.relative_error == 0 for layer in given.layers.values())
    assert torch.equal(given.model(inputs), small(inputs))
    corank.save(given.model, tmp_path / "a")
    corank.save(small, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_trained_adapters_are_read_saved_and_loaded(
    small: nn.Module, inputs: Tensor, tuned: nn.Module, tmp_path: Path
) -> None:
    before = small(inputs)
    tuned.save_pretrained(str(tmp_path / "tuned"))  # pyright: ignore
    expected = tuned(inputs)
    assert difference(before, expected) > 0.1
    read = [import_peft(small, source) for source in (tuned, tmp_path / "tuned", str(tmp_path / "tuned"))]
    for given in read:
        assert difference(given.model(inputs), expected) < 0.02
        assert torch.equal(given.model(inputs), read[0].model(inputs))
    assert torch.equal(small(inputs), before), "the model that was given has changed"
    corank.save(read[0].model, tmp_path / "tuned.safetensors")
    loaded = corank.load(tmp_path / "tuned.safetensors", network)
    assert torch.equal(loaded(inputs), read[0].model(inputs))
    assert base_name(loaded) == base_name(small)


def test_the_reported_error_is_that_of_the_coded_product(small: nn.Module, tuned: nn.Module) -> None:
    for bits in (8, 4):
        given = import_peft(small, tuned, adapter_bits=bits)
        for name, layer in given.layers.items():
            wanted = product(tuned, name)
            coded = given.model.get_submodule(name).code().adapter.product()  # pyright: ignore
            error = float((coded - wanted).norm() / wanted.norm())
            assert layer.adapter_bits == bits and math.isclose(layer.relative_error, error, rel_tol=1e-3)
            assert error < 0.5**bits * 8


def test_fewer_bits_make_a_smaller_file(small: nn.Module, tuned: nn.Module, tmp_path: Path) -> None:
    eight, four = (import_peft(small, tuned, adapter_bits=bits).model for bits in (8, 4))
    assert corank.inspect(four)["plan"]["default"]["adapter_bits"] == 4 or any(
        layer.get("adapter_bits") == 4 for layer in corank.inspect(four)["plan"]["layers"].values()
    )
    assert corank.inspect(four)["equivalent_bits"] < corank.inspect(eight)["equivalent_bits"]


def test_ranks_may_change(small: nn.Module, inputs: Tensor, tmp_path: Path) -> None:
    config = peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=["0", "3", "5", "8"], rank_pattern={"8": 20}, alpha_pattern={"^3": 7},
        use_rslora=True, init_lora_weights=False,
    )  # fmt: skip
    model = trained(peft.get_peft_model(peft_base(small), config), inputs)
    model.save_pretrained(str(tmp_path / "own"))  # pyright: ignore
    for source in (model, tmp_path / "own"):
        given = import_peft(small, source)
        ranks = {name: (layer.rank_before, layer.rank) for name, layer in given.layers.items()}
        assert ranks == {"0": (2, 3), "3": (1, 3), "5": (0, 3), "8": (2, 12)}
        assert difference(given.model(inputs), model(inputs)) < 0.02
        assert given.model.corank_run.plan.layers["8"].rank == 12  # pyright: ignore
        corank.save(given.model, tmp_path / "x.safetensors")
        assert torch.equal(corank.load(tmp_path / "x.safetensors", network)(inputs), given.model(inputs))


def refused(small: nn.Module, source: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        import_peft(small, source)


def test_what_is_more_than_plain_adapters_is_refused(small: nn.Module, tuned: nn.Module) -> None:
    targets = ["0", "3", "8"]
    for options, message in (
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["13"]}, "modules_to_save"),
        ({"target_modules": ["0", "3", "8", "13"]}, "'13', which is not a coded layer"),
        ({"target_modules": ["0", "3"]}, "'8' are missing"),
    ):
        config = peft.LoraConfig(**{"target_modules": targets, **options})
        refused(small, peft.get_peft_model(peft_base(small), config), message)
    refused(small, peft.get_peft_model(peft_base(small), peft.LoHaConfig(target_modules=targets)), "of type")
    tuned.merge_adapter()  # pyright: ignore
    refused(small, tuned, "unmerge_adapter")


@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer with groups:UserWarning")
def test_an_adapter_of_a_grouped_layer_is_refused(small: nn.Module) -> None:
    config = peft.LoraConfig(r=2, target_modules=["0", "3", "8", "11"])
    refused(small, peft.get_peft_model(peft_base(small), config), "'11' cannot be kept: .* no groups")


def test_initialisations_that_change_the_base_are_refused(small: nn.Module, tmp_path: Path) -> None:
    export_peft(small, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "init_lora_weights": "pissa"}))
    refused(small, tmp_path, "has changed the base's weights")


def test_another_base_is_refused(small: nn.Module, inputs: Tensor, tuned: nn.Module, tmp_path: Path) -> None:
    config = peft.LoraConfig(r=2, target_modules=["0", "3", "8"])
    whole = peft.get_peft_model(corank.to_float(small), config)
    refused(small, whole, "has changed")
    whole.save_pretrained(str(tmp_path / "whole"))
    refused(small, tmp_path / "whole", "trained on the base None")
    tuned.get_parameter("base_model.model.13.bias").data += 1
    refused(small, tuned, "'13.bias' of the PeftModel's base has changed")
    other = corank.quantize(network(), inputs, bits=3, budget=0.5, preset="nearest")
    with pytest.raises(ModelError, match=r"has no|has changed"):
        import_peft(other, tuned)


def test_several_adapters(small: nn.Module, tuned: nn.Module, tmp_path: Path) -> None:
    first = import_peft(small, tuned)
    tuned.load_adapter(str(tmp_path / "exported"), "untrained")  # pyright: ignore
    tuned.set_adapter("untrained")  # pyright: ignore
    assert all(layer.relative_error == 0 for layer in import_peft(small, tuned).layers.values())
    tuned.base_model.set_adapter(["default", "untrained"])  # pyright: ignore
    refused(small, tuned, "2 adapters are active")
    tuned.set_adapter("default")  # pyright: ignore
    assert import_peft(small, tuned).layers == first.layers


def test_unsound_checkpoints_are_refused(small: nn.Module, tmp_path: Path) -> None:
    export_peft(small, tmp_path)
    adapter, config = tmp_path / "adapter_model.safetensors", tmp_path / "adapter_config.json"
    data, text = adapter.read_bytes(), config.read_text()
    state, about = safetensors.torch.load(data), json.loads(text)
    key = "base_model.model.3.lora_A.weight"

    def with_state(**changes: Tensor) -> Callable[[], object]:
        return lambda: adapter.write_bytes(
            safetensors.torch.save({**state, **{name: one.clone() for name, one in changes.items()}})
        )

    def with_config(**changes: object) -> Callable[[], object]:
        return lambda: config.write_text(json.dumps({**about, **changes}))

    for change, message in (
        (lambda: adapter.write_bytes(data[:-5]), "cannot be read"),
        (lambda: adapter.unlink(), "cannot be read"),
        (lambda: config.write_text("{"), "cannot be read"),
        (lambda: config.write_text("[]"), "not a JSON object"),
        (with_state(**{key: state[key][:, :3]}), "has factors of"),
        (with_state(**{key: state[key][:0]}), "lacks a factor"),
        (with_state(**{key: state[key] * math.nan}), "not finite"),
        (with_state(**{"base_model.model.3.magnitude": state[key]}), "only lora_A and lora_B"),
        (with_state(**{"other.lora_A.weight": state[key]}), "only lora_A and lora_B"),
        (with_config(alpha_pattern={"^3": "much"}), "lora_alpha of layer '3'"),
        (with_config(alpha_pattern={"(": 2}), "lora_alpha of layer"),
        (with_config(alpha_pattern=[1]), "lora_alpha of layer"),
        (with_config(lora_alpha=math.inf, alpha_pattern={}), "lora_alpha of layer"),
        (with_config(a_later_option=True), "a_later_option"),
        (with_config(peft_type="ADALORA"), "of type 'ADALORA'"),
    ):
        adapter.write_bytes(data)
        config.write_text(text)
        change()
        refused(small, tmp_path, message)
    refused(small, tmp_path / "none", "cannot be read")


def test_arguments(small: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 to 8"):
        import_peft(small, tmp_path, adapter_bits=9)
    with pytest.raises(ConfigError, match="not Sequential"):
        import_peft(small, network())
    with pytest.raises(ModelError, match="not made by corank"):
        import_peft(network(), tmp_path)
