"""The base and the checkpoint for peft: equal outputs, and what peft cannot hold is merged and named."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import corank
from corank import LayerPlan, Plan, Uniform
from corank.errors import ArtifactError, ConfigError, ModelError, OutputError
from corank.export import export_peft, load_peft_base, peft_base, peft_layers
from corank.export.peft import base_name
from corank.models import resolve

peft = pytest.importorskip("peft")

ROOT = Path(__file__).parent.parent.parent
HELD = {
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), (5, 4, 9)),
    "conv2d": (lambda: nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(0, 1), bias=False), (5, 4, 7, 8)),
    "pointwise": (lambda: nn.Conv2d(4, 6, 1, dilation=2), (5, 4, 7, 8)),
    "same": (lambda: nn.Conv2d(4, 6, 3, padding="same"), (5, 4, 7, 8)),
    "valid": (lambda: nn.Conv2d(4, 6, 3, padding="valid"), (5, 4, 7, 8)),
    "conv3d": (lambda: nn.Conv3d(4, 6, 2, padding=1), (5, 4, 3, 3, 4)),
    "linear": (lambda: nn.Linear(7, 6), (5, 7)),
    "tokens": (lambda: nn.Linear(7, 6, bias=False), (5, 3, 7)),
}
MERGED = {
    "groups": (lambda: nn.Conv2d(4, 6, 3, groups=2), (5, 4, 7, 8), "no groups"),
    "dilation": (lambda: nn.Conv1d(4, 6, 3, dilation=2), (5, 4, 9), "no dilation"),
    "reflect": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (5, 4, 7, 8), "pads by 'reflect'"),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3), (5, 4, 7, 8), "transposed"),
}


def coded_with(model: nn.Module, inputs: Tensor, **ranks: int) -> nn.Module:
    """The model with 2-bit codes and adapters of these ranks; `__` stands for the dot in a layer's name."""
    plan = {name.replace("__", "."): LayerPlan(Uniform(2), rank=rank) for name, rank in ranks.items()}
    return corank.quantize(model.eval(), inputs, plan=Plan(plan))


def adapted(model: nn.Module, folder: Path) -> nn.Module:
    """What someone has who was given the folder and the float network's code."""
    return peft.PeftModel.from_pretrained(load_peft_base(folder, model), str(folder)).eval()


def assert_equal(given: Tensor, expected: Tensor) -> None:
    assert difference(given, expected) <= 1e-5


def difference(given: Tensor, expected: Tensor) -> float:
    return float((given - expected).detach().abs().max() / expected.detach().abs().max())


@pytest.mark.parametrize("kind", HELD)
def test_peft_computes_what_we_compute(kind: str, tmp_path: Path) -> None:
    make, shape = HELD[kind]
    model, inputs = nn.Sequential(make()), torch.randn(shape)
    small = corank.quantize(model, inputs, plan=Plan({"0": LayerPlan(Uniform(2), rank=2)}))
    assert dict(peft_layers(small).held) == {"0": 2}
    export_peft(small, tmp_path)
    given = adapted(model, tmp_path)
    assert_equal(given(inputs), small(inputs))
    with given.disable_adapter():  # pyright: ignore
        assert difference(given(inputs), small(inputs)) > 1e-2


@pytest.mark.parametrize("kind", MERGED)
def test_what_peft_cannot_hold_is_merged_and_named(kind: str, tmp_path: Path) -> None:
    make, shape, reason = MERGED[kind]
    inputs = torch.randn(shape)
    model = nn.Sequential(make(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    model(inputs)
    small = corank.quantize(model, inputs, plan=Plan({name: LayerPlan(Uniform(2), rank=1) for name in ("0", "3")}))
    layers = peft_layers(small)
    assert dict(layers.held) == {"3": 1} and list(layers.merged) == ["0"] and reason in layers.merged["0"]
    result = export_peft(small, tmp_path, inputs)
    assert any("0 is merged" in note and reason in note for note in result.notes)
    assert result.relative_difference is not None and result.relative_difference <= 1e-5
    assert_equal(adapted(model, tmp_path)(inputs), small(inputs))


def test_a_mixed_network(every_kind: nn.Module, images: Tensor, tmp_path: Path) -> None:
    names = ("body.0", "body.3", "body.6", "body.7", "cube", "line", "grow", "tokens", "head")
    plan = Plan({name: LayerPlan(Uniform(2), rank=1) for name in names})
    small = corank.quantize(every_kind, images, plan=plan)
    layers = peft_layers(small)
    assert {"cube", "tokens", "head"} <= set(layers.held) and "2 names" in layers.merged["body.3"]
    result = export_peft(small, tmp_path, images)
    assert result.size_bytes == sum(path.stat().st_size for path in result.files)
    assert result.artifact_bytes is not None and result.artifact_bytes < result.size_bytes
    assert_equal(adapted(every_kind, tmp_path)(images), small(images))


class Nested(nn.Module):
    """Names that end in one another, with norms, and a layer without an adapter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.block = nn.ModuleDict({"conv": nn.Conv2d(6, 6, 3), "xconv": nn.Conv2d(6, 6, 1)})
        self.a = nn.ModuleDict({"block": nn.ModuleDict({"conv": nn.Conv2d(6, 6, 1)})})

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.norm(self.conv(inputs)).relu()
        return self.a["block"]["conv"](self.block["xconv"](self.block["conv"](x)))  # pyright: ignore


@pytest.fixture
def nested() -> tuple[nn.Module, Tensor, nn.Module]:
    model, inputs = Nested().eval(), torch.randn(4, 3, 8, 8)
    model.norm.running_var.uniform_(0.5, 2)  # pyright: ignore
    return model, inputs, coded_with(model, inputs, conv=1, block__conv=4, block__xconv=0, a__block__conv=2)


def test_ranks_follow_whole_names_also_after_peft_has_saved_them(
    nested: tuple[nn.Module, Tensor, nn.Module], tmp_path: Path
) -> None:
    model, inputs, small = nested
    export_peft(small, tmp_path / "a")
    given = adapted(model, tmp_path / "a")
    ranks = {name: module.r["default"] for name, module in given.named_modules() if hasattr(module, "lora_A")}
    assert ranks == {
        "base_model.model.conv": 1, "base_model.model.block.conv": 4, "base_model.model.a.block.conv": 2
    }  # fmt: skip
    assert {module.scaling["default"] for module in given.modules() if hasattr(module, "lora_A")} == {1.0}  # pyright: ignore
    with pytest.warns(UserWarning, match="Could not find a config file"):
        given.save_pretrained(str(tmp_path / "b"))  # pyright: ignore
    again = peft.PeftModel.from_pretrained(peft_base(small), str(tmp_path / "b"))
    assert_equal(again(inputs), small(inputs))


def test_the_base_is_that_of_the_codes_with_norms_folded(
    nested: tuple[nn.Module, Tensor, nn.Module], tmp_path: Path
) -> None:
    model, _inputs, small = nested
    export_peft(small, tmp_path)
    read, made = load_peft_base(tmp_path, Nested), peft_base(small)
    assert type(read.norm) is nn.Identity and read.conv.bias is not None  # pyright: ignore
    assert read.state_dict().keys() == made.state_dict().keys()
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in read.state_dict().items())
    layer = small.get_submodule("block.conv")
    codes = layer.code().weight.decode().reshape(6, 6, 3, 3)  # pyright: ignore
    assert torch.equal(made.get_parameter("block.conv.weight"), codes)
    assert type(model.norm) is nn.BatchNorm2d  # pyright: ignore


def test_a_base_is_named_by_all_but_the_adapters(nested: tuple[nn.Module, Tensor, nn.Module], tmp_path: Path) -> None:
    model, inputs, small = nested
    corank.save(small, tmp_path / "small.safetensors")
    assert base_name(corank.load(tmp_path / "small.safetensors", Nested)) == base_name(small)
    more = coded_with(model, inputs, conv=2, block__conv=1, block__xconv=1, a__block__conv=0)
    assert base_name(more) == base_name(small)
    model.get_parameter("conv.weight").data[0] *= -1
    other = coded_with(model, inputs, conv=1, block__conv=4, block__xconv=0, a__block__conv=2)
    assert base_name(other) != base_name(small)


def test_factors_are_balanced_without_changing_their_product(tmp_path: Path) -> None:
    model, inputs = nn.Sequential(nn.Linear(20, 16)), torch.randn(200, 20)
    plan = Plan({"0": LayerPlan(Uniform(2), rank=4, fit="output")})
    small = corank.quantize(model, inputs, plan=plan)
    export_peft(small, tmp_path)
    tensors = safetensors.torch.load_file(tmp_path / "adapter_model.safetensors")
    right, left = (tensors[f"base_model.model.0.lora_{side}.weight"] for side in "AB")
    code = small.get_submodule("0").code()  # pyright: ignore
    assert torch.equal(left @ right, code.adapter.product())
    ours = code.adapter.right.decode().norm(dim=1) / code.adapter.left.decode().norm(dim=1)
    ratio = right.norm(dim=1) / left.norm(dim=0)
    assert float(ours.max()) < 0.5 and float(ratio.min()) >= 0.5 and float(ratio.max()) <= 2


def test_half_precision_and_rounded_inputs(tmp_path: Path) -> None:
    model, inputs = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), torch.randn(64, 6)
    plan = Plan({name: LayerPlan(Uniform(2), rank=2, inputs=4) for name in ("0", "2")})
    small = corank.quantize(model, inputs, plan=plan)
    result = export_peft(small.half(), tmp_path, inputs)
    assert any("float in peft" in note for note in result.notes)
    assert_equal(adapted(model, tmp_path)(inputs), corank.to_float(small.float())(inputs))


def test_what_cannot_be_exported(
    nested: tuple[nn.Module, Tensor, nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs, small = nested
    with pytest.raises(ModelError, match="no adapter that peft can hold"):
        export_peft(coded_with(model, inputs, conv=0), tmp_path / "a")
    with pytest.raises(ModelError, match="not made by corank"):
        export_peft(model, tmp_path / "a")
    with pytest.raises(ModelError, match="differ"):
        export_peft(small, tmp_path / "a", inputs, tolerance=1e-12)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        export_peft(small, tmp_path / "file")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"corank\[peft\]"):
        export_peft(small, tmp_path / "a")


def test_unsound_bases_are_refused(nested: tuple[nn.Module, Tensor, nn.Module], tmp_path: Path) -> None:
    _, _, small = nested
    export_peft(small, tmp_path)
    path = tmp_path / "base" / "model.safetensors"
    data = path.read_bytes()
    about = {"name": "x", "folded": ["norm"], "layers": ["conv"]}
    state = safetensors.torch.load(data)
    broken: dict[str, Callable[[], bytes]] = {
        "truncated": lambda: data[:-9],
        "no metadata": lambda: safetensors.torch.save(state),
        "no such layer": lambda: safetensors.torch.save(
            state, {"corank_base": json.dumps({**about, "layers": ["none"]})}
        ),
        "no such norm": lambda: safetensors.torch.save(state, {"corank_base": json.dumps({**about, "folded": 3})}),
        "no list": lambda: safetensors.torch.save(state, {"corank_base": "[]"}),
        "a tensor less": lambda: safetensors.torch.save(
            {name: value for name, value in state.items() if name != "conv.weight"},
            {"corank_base": json.dumps(about)},
        ),
    }
    for change in broken.values():
        path.write_bytes(change())
        with pytest.raises(ArtifactError, match="no base that fits"):
            load_peft_base(tmp_path, Nested)
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="no base that fits"):
        load_peft_base(tmp_path, nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(ArtifactError):
        load_peft_base(tmp_path / "none", Nested)
    with pytest.raises(ConfigError, match="function that makes one"):
        load_peft_base(tmp_path, "Nested")  # pyright: ignore


def test_resnet20(shared: Path, tmp_path: Path) -> None:
    source = resolve(
        f"{ROOT / 'bench' / 'models.py'}:cifar_resnet20", weights=shared / "models" / "cifar10_resnet20.safetensors"
    )
    inputs = torch.randn(4, 3, 32, 32)
    small = corank.quantize(source.model, inputs, bits=2, budget=0.4, preset="nearest")
    result = export_peft(small, tmp_path, inputs)
    assert len(peft_layers(small).held) >= 15 and not peft_layers(small).merged
    assert result.relative_difference is not None and result.relative_difference <= 1e-5
