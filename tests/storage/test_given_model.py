"""Files loaded into models of another precision, on the meta device, or wrapped."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.storage.given_model import check_dtype, take_dtype, wrapping


def network(bias: bool = True) -> nn.Sequential:
    layers = nn.Conv2d(3, 8, 3, bias=bias), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)
    return nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[torch.float32, torch.bfloat16, torch.float16], scope="module")
def saved(
    request: pytest.FixtureRequest, images: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, nn.Module, torch.dtype]:
    """A file of a model of some precision."""
    path = tmp_path_factory.mktemp("given") / "small.safetensors"
    model = network().to(request.param)
    small = corank.quantize(model, images.to(request.param), bits=4, budget=0, preset="nearest", fold=False)
    corank.save(small, path)
    return path, small, request.param


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16, torch.float64])
def test_another_precision_is_said(
    saved: tuple[Path, nn.Module, torch.dtype], images: Tensor, given: torch.dtype
) -> None:
    path, small, stored = saved
    model = network().to(given)
    if given == stored:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = corank.load(path, model)
    else:
        with pytest.warns(corank.CorankWarning, match=rf"network of {stored}, and the one given is {given}.*dtype="):
            loaded = corank.load(path, model)
    assert torch.equal(loaded(images.to(stored)), small(images.to(stored)))
    assert model[0].weight.dtype == given


@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16, torch.float64])
def test_a_precision_may_be_asked_for(
    saved: tuple[Path, nn.Module, torch.dtype], images: Tensor, wanted: torch.dtype
) -> None:
    path, small, _ = saved
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = corank.load(path, network(), dtype=wanted)
    assert {part.dtype for part in loaded.parameters()} == {wanted}
    assert loaded(images.to(wanted)).dtype == wanted
    again = corank.load(path, network().to(wanted), dtype=wanted)
    assert torch.equal(again(images.to(wanted)), loaded(images.to(wanted)))
    bound = 0.1 if torch.bfloat16 in (wanted, saved[2]) else 0.01
    assert torch.allclose(loaded(images.to(wanted)).float(), small(images.to(saved[2])).float(), atol=bound)


def test_parts_of_another_precision_keep_it(images: Tensor, tmp_path: Path) -> None:
    """A norm in float32 inside of a bfloat16 network comes back as it was."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3)
            self.bfloat16()
            self.norm.float()
            nn.init.uniform_(self.norm.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.norm(self.a(x).float()).bfloat16())

    model = Mixed().eval()
    inputs = images.bfloat16()
    small = corank.quantize(model, inputs, bits=4, budget=0, preset="nearest")
    corank.save(small, tmp_path / "small.safetensors")
    loaded = corank.load(tmp_path / "small.safetensors", Mixed)
    assert torch.equal(loaded(inputs), small(inputs))


def test_a_dtype_that_cannot_be() -> None:
    check_dtype(None)
    for bad in ("bf16", torch.int8, 32):
        with pytest.raises(corank.ConfigError, match=r"dtype=.*torch\.float32"):
            check_dtype(bad)


def test_a_model_on_the_meta_device_is_filled(saved: tuple[Path, nn.Module, torch.dtype], images: Tensor) -> None:
    path, small, stored = saved
    with torch.device("meta"):
        model = network()
    loaded = corank.load(path, model, dtype=stored)
    assert torch.equal(loaded(images.to(stored)), small(images.to(stored)))
    assert model[0].weight.is_meta and not any(value.is_meta for value in loaded.state_dict().values())


def test_a_buffer_that_the_file_does_not_hold_is_named(images: Tensor, tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()
            self.register_buffer("gain", torch.full((1,), 0.5), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x * self.gain)

    path = tmp_path / "small.safetensors"
    corank.save(corank.quantize(Net(), images, bits=4, budget=0, preset="nearest"), path)
    with pytest.raises(corank.ArtifactError, match="its buffer 'gain' is on the meta device"):
        corank.load(path, Net().to("meta"))


def test_models_without_values_are_refused(images: Tensor, tmp_path: Path) -> None:
    meta = network().to("meta")
    with pytest.raises(corank.ModelError, match="on the meta device"):
        corank.quantize(meta, images, bits=4)
    with pytest.raises(corank.ModelError, match="on the meta device"):
        corank.evaluate(meta, [(images, torch.zeros(16, dtype=torch.int64))])
    with pytest.raises(corank.ModelError, match="on the meta device"):
        corank.evaluate(meta, [(images, torch.zeros(16, dtype=torch.int64))], device="cpu")
    small = corank.quantize(network(), images, bits=4, budget=0, preset="nearest").to("meta")
    with pytest.raises(corank.ModelError, match="on the meta device"):
        corank.save(small, tmp_path / "small.safetensors")


def test_take_dtype_leaves_what_fits() -> None:
    model = network()
    take_dtype(model, "0", torch.float32, None)
    assert model[0].weight.dtype == torch.float32
    take_dtype(model, "0", torch.float32, torch.float16)
    assert model[4].weight.dtype == torch.float16


def test_rotations_keep_the_precision_they_were_computed_in(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4
    )
    torch.manual_seed(0)
    float32 = transformers.LlamaForCausalLM(config).eval()
    float32.save_pretrained(tmp_path / "llama")
    half = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "llama", dtype=torch.bfloat16).eval()
    tokens = torch.randint(40, (2, 16))
    small = corank.quantize(half, tokens, bits=4, budget=0, preset="nearest")
    corank.save(small, tmp_path / "small.safetensors")

    for more in ({}, {"dtype": torch.bfloat16}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", corank.CorankWarning)
            loaded = corank.load(tmp_path / "small.safetensors", transformers.LlamaForCausalLM(config), **more)
        assert loaded.model.rotary_emb.inv_freq.dtype == torch.float32
        with torch.no_grad():
            assert torch.equal(loaded(tokens).logits, small(tokens).logits)


def test_wrapping_says_who_is_wrapped() -> None:
    plain, wrapped = dict(network().named_modules()), dict(nn.DataParallel(network()).named_modules())
    assert "the model in the file was wrapped by torch.nn.DataParallel" in wrapping("module.0", plain)
    assert "this model is wrapped by torch.nn.DataParallel" in wrapping("0", wrapped)
    assert wrapping("conv", plain) == ""
