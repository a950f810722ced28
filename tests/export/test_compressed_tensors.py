"""compressed-tensors: codes packed as its own package packs them, and read back by it and by transformers."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import corank
from corank.codecs import Codec, KMeans, Uniform
from corank.errors import ConfigError, ModelError
from corank.export import export_compressed_tensors
from corank.export.compressed_layers import pack_rows
from corank.layers import CodedLinear

transformers = pytest.importorskip("transformers")
pytest.importorskip("compressed_tensors")

from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32  # noqa: E402

IDS = torch.randint(40, (2, 8), generator=torch.Generator().manual_seed(0))
FOUR = Uniform(bits=4, symmetric=True, group=16)


def quantized(codec: Codec = FOUR, budget: float = 0.0) -> Any:
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    return corank.quantize(model, IDS, codec=codec, budget=budget, preset="nearest", search="uniform")


@pytest.fixture(scope="module")
def small() -> Any:
    """A quantized model that no test changes."""
    return quantized()


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("bits", [4, 8])
def test_words_are_those_of_the_package(bits: int) -> None:
    half = 1 << (bits - 1)
    numbers = torch.randint(-half, half, (5, 37))
    assert torch.equal(pack_rows(numbers, bits), pack_to_int32(numbers.to(torch.int8), bits))


@pytest.mark.parametrize(
    ("codec", "symmetric", "bits"),
    [(FOUR, True, 4), (Uniform(bits=4, group=16), False, 4), (Uniform(bits=8), False, 8), (Uniform(bits=2), True, 4)],
)
def test_the_package_decodes_the_same_weights(codec: Codec, symmetric: bool, bits: int, tmp_path: Path) -> None:
    small = quantized(codec)
    result = export_compressed_tensors(small, tmp_path, IDS, dtype=torch.float32)
    assert result.max_difference == 0
    config = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    (group,) = config["config_groups"].values()
    assert group["weights"]["symmetric"] is symmetric and group["weights"]["num_bits"] == bits
    assert group["weights"]["strategy"] == ("group" if getattr(codec, "group", 0) else "channel")
    assert group["targets"] == ["Linear"] and config["ignore"] == ["lm_head"]
    held = load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    assert held[f"{name}_packed"].shape == (32, 48 * bits // 32) and held[f"{name}_shape"].tolist() == [32, 48]
    assert (f"{name}_zero_point" in held) is not symmetric and name not in held


def test_transformers_computes_the_same(small: Any, tmp_path: Path) -> None:
    result = export_compressed_tensors(small, tmp_path, IDS)
    assert result.relative_difference is not None and 0 < result.relative_difference < 5e-3  # floats are fp16
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert (logits(again) - logits(small)).abs().max() < 5e-3 * logits(small).abs().max()


def test_layers_that_vllm_joins_agree(tmp_path: Path) -> None:
    """With an adapter on the queries alone, keys and values are floats as well."""
    small = quantized(FOUR, budget=1.0)
    ranks = {name: module.rank for name, module in small.named_modules() if isinstance(module, CodedLinear)}
    assert any(ranks.values())
    if all(ranks[name] for name in ranks if name != "lm_head"):
        with pytest.raises(ModelError, match=r"no layer fits .*its adapter is added .*budget=0"):
            export_compressed_tensors(small, tmp_path / "x", IDS)
        assert not (tmp_path / "x").exists()
        return
    result = export_compressed_tensors(small, tmp_path, IDS, dtype=torch.float32)
    held = load_file(tmp_path / "model.safetensors")
    for joined in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")):
        packed = {any(name.endswith(f"{one}.weight_packed") for name in held) for one in joined}
        assert len(packed) == 1
    assert any("its adapter is added to its weight" in note for note in result.notes)


def test_what_cannot_be_written_is_told_in_a_sentence(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"torch\.int8: torch\.float16, torch\.bfloat16"):
        export_compressed_tensors(small, tmp_path / "x", IDS, dtype=torch.int8)
    with pytest.raises(ModelError, match=r"not equally spaced.*quantize with codec=corank\.Uniform"):
        export_compressed_tensors(quantized(KMeans(bits=4)), tmp_path / "x", IDS)
    with pytest.raises(ModelError, match=r"a Sequential; .*export_onnx"):
        other = corank.quantize(nn.Sequential(nn.Linear(32, 4)), torch.randn(8, 32), budget=0)
        export_compressed_tensors(other, tmp_path / "x")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "compressed_tensors" else found(name, *rest)
    )
    with pytest.raises(ConfigError, match=r"pip install 'corank\[compressed-tensors\]'"):
        export_compressed_tensors(small, tmp_path / "x", IDS)
    assert not (tmp_path / "x").exists()


def test_half_precisions_say_what_they_round(small: Any, tmp_path: Path) -> None:
    result = export_compressed_tensors(small, tmp_path, IDS, dtype=torch.bfloat16)
    assert any("rounded to bfloat16" in note for note in result.notes)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
