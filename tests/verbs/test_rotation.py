"""quantize(rotate=...): through codes, files, packed layers and exports; outliers that no longer cost anything."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.codecs import ICQuant, Uniform
from corank.data import TokenSet
from corank.export import export_compressed_tensors, export_gguf, export_onnx
from corank.export.to_torch import to_float
from corank.layers import CodedLayer, RotatedLayer
from corank.storage.model_record import run_of

transformers = pytest.importorskip("transformers")
TOKENS = torch.randint(40, (8, 16), generator=torch.Generator().manual_seed(0))


def decoder(tied: bool = True) -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied, initializer_range=0.2,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(TOKENS).logits


ASKED = [
    ("fold", {"bits": 3, "budget": 0.5, "search": "uniform"}),
    ("layers", {"bits": 3, "budget": 0.5, "preset": "nearest", "search": "greedy"}),
    ("fold", {"rate": 2.0}),
    ("layers", {"rate": 2.0, "codec": "trellis", "preset": "nearest"}),
    ("fold", {"bits": 3, "codec": ICQuant(levels="kmeans", per="layer"), "budget": 0, "preset": "nearest"}),
    ("layers", {"bits": 4, "codec": Uniform(range="output", group=32, half=True), "budget": 0, "activations": 8}),
]


@pytest.mark.parametrize(("how", "asked"), ASKED)
def test_a_file_loads_into_the_original_class(tmp_path: Path, how: str, asked: dict[str, Any]) -> None:
    model = decoder()
    small = corank.quantize(model, TOKENS, rotate=how, **asked)
    path = tmp_path / "small.safetensors"
    corank.save(small, path)
    back = corank.load(path, decoder())
    assert type(back) is type(model) and torch.equal(logits(back), logits(small))
    packed = corank.load(path, decoder(), packed=True)
    torch.testing.assert_close(logits(packed), logits(small), rtol=1e-3, atol=1e-3)
    lazily = corank.load(path, decoder)
    assert torch.equal(logits(lazily), logits(small))
    entries = corank.inspect(path)["structure"]
    kinds = {entry["kind"] for entry in entries}
    assert kinds == ({"rotated-stream"} if how == "fold" else {"rotation"})
    assert (corank.evaluate(back, TokenSet(TOKENS), model).nats or 0) < 5
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_rotated_layers_are_named_by_what_is_in_them() -> None:
    small = corank.quantize(
        decoder(False), TOKENS, rotate="layers", bits=3, budget=0, preset="nearest", layers={"*.down_proj.layer": 8}
    )
    plan = run_of(small).plan.layers["model.layers.0.mlp.down_proj.layer"]
    assert plan.codec is not None and plan.codec.bits == 8
    coded = [name for name, one in small.named_modules() if isinstance(one, CodedLayer)]
    assert "lm_head.layer" in coded and len(coded) == 9


def stretched(channels: int, by: float) -> nn.Module:
    """A layer whose inputs have a few channels of large numbers, and weights of a few large columns."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(64, 64, bias=False), nn.Linear(64, 8, bias=False)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.last(self.first(inputs))

    torch.manual_seed(0)
    made = Net()
    with torch.no_grad():
        made.first.weight[:, :channels] *= by
    return made


def error(model: nn.Module, small: nn.Module, inputs: Tensor) -> float:
    with torch.no_grad():
        return float((small(inputs) - model(inputs)).square().mean() / model(inputs).square().mean())


def test_outlier_channels_cost_less_once_they_are_spread() -> None:
    model, inputs = stretched(2, 25.0), torch.randn(256, 64)
    inputs[:, :2] /= 25  # so that all columns count alike
    asked: dict[str, Any] = {"bits": 4, "budget": 0, "all_layers": True}
    plain, turned = (
        error(model, corank.quantize(model, inputs, rotate=how, codec=Uniform(), preset="nearest", **asked), inputs)
        for how in (None, "layers")
    )
    assert turned < 0.25 * plain


@pytest.mark.parametrize("module", ["model.layers.0.mlp.down_proj", "model.norm", "nowhere"])
def test_a_file_with_a_wrong_rotation_is_refused(tmp_path: Path, module: str) -> None:
    small = corank.quantize(decoder(), TOKENS, rotate="layers", bits=4, budget=0, preset="nearest")
    run = run_of(small)
    wrong = [dict(entry) for entry in run.structure]
    wrong[0]["module"] = module
    forged = copy.deepcopy(small)
    forged.__dict__["corank_run"] = type(run)(**{**run.__dict__, "structure": tuple(wrong)})
    corank.save(forged, tmp_path / "wrong.safetensors")
    with pytest.raises(corank.ArtifactError):
        corank.load(tmp_path / "wrong.safetensors", decoder())


@pytest.mark.parametrize("value", [-1, True, "0", 1 << 64, None])
def test_a_file_with_a_seed_that_is_none_is_refused(tmp_path: Path, value: Any) -> None:
    small = corank.quantize(decoder(), TOKENS, rotate="fold", bits=4, budget=0, preset="nearest")
    run = run_of(small)
    wrong = ({**run.structure[0], "seed": value},)
    small.__dict__["corank_run"] = type(run)(**{**run.__dict__, "structure": wrong})
    try:
        corank.save(small, tmp_path / "wrong.safetensors")
    except corank.CorankError:
        return
    with pytest.raises(corank.ArtifactError, match="a structure's rotation has a seed"):
        corank.load(tmp_path / "wrong.safetensors", decoder())


def test_arguments() -> None:
    with pytest.raises(corank.ConfigError, match=r"rotate='both': 'fold', 'layers' or None"):
        corank.quantize(decoder(), TOKENS, rotate="both")
    with pytest.raises(corank.ModelError, match="rotate='layers' takes any network"):
        corank.quantize(stretched(0, 1.0), torch.randn(8, 64), rotate="fold")


FOUR = Uniform(bits=4, symmetric=True, group=32)


@pytest.fixture(scope="module")
def folded() -> Any:
    return corank.quantize(decoder(), TOKENS, codec=FOUR, rotate="fold", budget=0, preset="nearest")


@pytest.fixture(scope="module")
def turning() -> Any:
    return corank.quantize(decoder(), TOKENS, codec=FOUR, rotate="layers", budget=0, preset="nearest")


def test_a_folded_network_is_written_for_llama_cpp(tmp_path: Path, folded: Any, turning: Any) -> None:
    gguf = pytest.importorskip("gguf")
    made = export_gguf(folded, tmp_path / "small.gguf", tokenizer=False)
    assert (made.relative_difference or 0) < 1e-2
    assert "output.weight" in {tensor.name for tensor in gguf.GGUFReader(made.path).tensors}
    with pytest.raises(corank.ModelError, match=r"turns its inputs as it runs, and GGUF has no such layer.*'fold'"):
        export_gguf(turning, tmp_path / "turning.gguf", tokenizer=False)


def test_a_folded_network_is_written_for_vllm(tmp_path: Path, folded: Any, turning: Any) -> None:
    pytest.importorskip("compressed_tensors")
    export_compressed_tensors(folded, tmp_path / "folder", tokenizer=False)
    assert json.loads((tmp_path / "folder" / "config.json").read_text())["tie_word_embeddings"] is False
    with pytest.raises(corank.ModelError, match="and compressed-tensors has no such layer"):
        export_compressed_tensors(turning, tmp_path / "other", tokenizer=False)


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="needs onnxruntime")
def test_onnx_files_rotate_as_they_run(tmp_path: Path, turning: Any) -> None:
    assert any(isinstance(one, RotatedLayer) for one in to_float(turning).modules())
    made = export_onnx(turning, tmp_path / "small.onnx", TOKENS[:1])
    assert (made.relative_difference or 0) < 1e-4
