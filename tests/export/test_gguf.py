"""GGUF: codes in ggml's blocks, equal bit for bit; the file as transformers and the package gguf read it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import corank
from corank.codecs import Codec, KMeans, Ternary, Uniform
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError, ModelError
from corank.export import GgufTypes, export_gguf
from corank.export.gguf_blocks import BLOCK_TYPES, KINDS, Blocks, blocks_of
from corank.export.gguf_llama import in_their_order
from corank.export.stored import stored_weight

gguf = pytest.importorskip("gguf")
transformers = pytest.importorskip("transformers")

IDS = torch.randint(40, (4, 16), generator=torch.Generator().manual_seed(0))
ALL = tuple(BLOCK_TYPES)
FOUR = Uniform(bits=4, symmetric=True, group=32)


def coded(codec: Codec, rows: int = 8, columns: int = 512) -> CodedWeight:
    weight = torch.randn(rows, columns)
    codebook = codec.fit(weight)
    return CodedWeight(codebook.nearest(weight), codebook)


def blocks(one: CodedWeight, types: tuple[str, ...] = ALL, exact: bool = False) -> Blocks:
    found = blocks_of(stored_weight(one, KINDS), types, exact)
    assert isinstance(found, Blocks), found
    return found


def dequantized(found: Blocks) -> Tensor:
    """As ggml's own package reads it."""
    return torch.from_numpy(gguf.dequantize(found.data, gguf.GGMLQuantizationType[found.type]))


@pytest.mark.parametrize(
    ("codec", "types", "expected"),
    [
        (FOUR, ALL, "Q4_0"),
        (Uniform(bits=3), ALL, "Q4_0"),
        (Uniform(bits=4, group=64), ("Q5_0",), "Q5_0"),
        (Uniform(bits=5, symmetric=True, group=-1), ALL, "Q5_0"),
        (Uniform(bits=8, symmetric=True, group=32), ALL, "Q8_0"),
        (Uniform(bits=4, half=True, range="mse"), ("Q8_0",), "Q8_0"),
        (Uniform(bits=1, symmetric=True), ALL, "TQ1_0"),
        (Ternary(group=256), ALL, "TQ1_0"),
        (Ternary(), ("TQ2_0",), "TQ2_0"),
    ],
)
def test_values_are_the_codes_own(codec: Codec, types: tuple[str, ...], expected: str) -> None:
    one = coded(codec)
    found = blocks(one, types, exact=True)
    assert found.type == expected and found.exact
    assert torch.equal(dequantized(found), one.decode())


@pytest.mark.parametrize(("codec", "expected"), [(Uniform(bits=4, group=32), "Q4_1"), (Uniform(bits=5), "Q5_1")])
def test_offsets_are_rounded_to_fp16_and_codes_not_at_all(codec: Uniform, expected: str) -> None:
    one = coded(codec)
    found = blocks(one)
    assert found.type == expected and not found.exact
    size = BLOCK_TYPES[expected].columns
    data = found.data.reshape(8, 512 // size, -1)
    scale, least = (np.ascontiguousarray(data[..., at : at + 2]).view(np.float16).astype(np.float32) for at in (0, 2))
    codes = (dequantized(found).reshape(8, -1, size).numpy() - least) / scale
    assert np.array_equal(codes.round().reshape(8, 512), one.codes.numpy() - one.codes.numpy().min())
    assert (dequantized(found) - one.decode()).abs().max() <= 2.0**-11 * np.abs(least).max()


@pytest.mark.parametrize("name", ALL)
def test_bytes_are_those_that_ggml_writes(name: str) -> None:
    """Where the largest number of every block occurs, ggml's own quantization finds the same codes."""
    kind = BLOCK_TYPES[name]
    numbers = torch.randint(kind.low, kind.high + 1, (4, 512)).reshape(4, -1, kind.columns)
    numbers[..., 0], numbers[..., 1] = kind.low, kind.high
    if name == "Q8_0":  # which ggml takes from -127 on
        numbers = numbers.clamp(-127)
    scale = torch.tensor(0.25, dtype=torch.float32)  # a power of two: products are exact
    least = 1.5 if kind.has_least else 0.0
    weight = scale * numbers.reshape(4, 512).float() + least
    theirs = gguf.quantize(weight.numpy(), gguf.GGMLQuantizationType[name])
    ours = kind.pack(
        (numbers - kind.low).to(torch.uint8).numpy(),
        np.full((4, 512 // kind.columns, 1), scale, np.float16).view(np.uint8),
        np.full((4, 512 // kind.columns, 1), least, np.float16).view(np.uint8),
    ).reshape(4, -1)
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("codec", "columns", "reason"),
    [
        (KMeans(bits=4), 512, "not equally spaced"),
        (FOUR, 48, "48 columns are no multiple"),
        (Uniform(bits=4, symmetric=True, group=48), 192, "groups of 48 columns"),
        (Uniform(bits=8), 512, "no type of"),
    ],
)
def test_what_does_not_fit_says_why(codec: Codec, columns: int, reason: str) -> None:
    found = blocks_of(stored_weight(coded(codec, columns=columns), KINDS), ALL)
    assert isinstance(found, str) and reason in found


def llama(tied: bool = False, **more: Any) -> Any:
    """A tiny Llama with grouped heads and weights large enough to matter."""
    settings: dict[str, Any] = {
        "vocab_size": 40, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "tie_word_embeddings": tied, "initializer_range": 0.2,
    }  # fmt: skip
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**settings, **more})).eval()


def quantized(model: nn.Module, codec: Codec = FOUR, budget: float = 0.0) -> Any:
    ids = IDS % model.config.vocab_size
    return corank.quantize(model, ids, codec=codec, budget=budget, preset="nearest", search="uniform")


@pytest.fixture(scope="module")
def small() -> Any:
    """A quantized model that no test changes."""
    return quantized(llama())


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_reads_the_same_model(tied: bool, tmp_path: Path) -> None:
    """Its own reader knows names, the order of rotated rows and settings; nothing of it is corank's."""
    rotation = {"rope_type": "llama3", "rope_theta": 5e3, "factor": 4.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 16}  # fmt: skip
    small = quantized(llama(tied, rope_parameters=None if tied else rotation))
    result = export_gguf(small, tmp_path / "small.gguf", IDS, tokenizer=characters())
    assert result.max_difference == 0 and f"{15 if tied else 16} of Q4_0" in result.notes[0]
    held = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "small.gguf").tensors}
    assert ("rope_freqs.weight" in held) is not tied and ("output.weight" in held) is not tied
    if tied:
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="small.gguf", dtype=torch.float32)
        assert (logits(again) - logits(small)).abs().max() < 1e-5 * logits(small).abs().max()


def test_rows_of_queries_come_in_pairs() -> None:
    config = llama().config
    rows = torch.arange(16)
    found = in_their_order("model.layers.0.self_attn.k_proj.weight", rows, config)
    assert found.tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]
    assert torch.equal(in_their_order("model.layers.0.self_attn.k_proj.weight", found, config, back=True), rows)
    assert torch.equal(in_their_order("model.layers.0.self_attn.v_proj.weight", rows, config), rows)


def test_layers_with_adapters_are_floats_and_named(tmp_path: Path) -> None:
    small = quantized(llama(), budget=2.0)
    result = export_gguf(small, tmp_path / "small.gguf", IDS)
    assert any("F16: its adapter is added to its weight" in note for note in result.notes)
    exact = export_gguf(small, tmp_path / "small.gguf", IDS, types=GgufTypes(exact=True))
    assert any("F32: its adapter" in note for note in exact.notes)
    assert exact.max_difference is not None and exact.max_difference < 1e-5


def characters(extra: int = 0) -> Any:
    """A tokenizer of single characters, merged by bytes, with an end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = {letter: place for place, letter in enumerate("Ġabcdefghijklmnopqrstuvwxyz.,!?ABCDEFGHI"[: 40 + extra])}
    backend = Tokenizer(models.BPE(vocab=letters, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="I")


def field(path: Path, name: str) -> Any:
    return gguf.GGUFReader(path).fields[name].contents()


def test_the_tokenizer_travels(small: Any, tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    result = export_gguf(small, path, IDS, tokenizer=characters())
    assert field(path, "tokenizer.ggml.model") == "gpt2" and field(path, "tokenizer.ggml.pre") == "gpt-2"
    assert field(path, "tokenizer.ggml.tokens")[:3] == ["Ġ", "a", "b"]
    assert field(path, "tokenizer.ggml.eos_token_id") == 39 and field(path, "tokenizer.ggml.add_bos_token") is False
    assert field(path, "llama.attention.head_count_kv") == 2
    assert not any("token ids alone" in note for note in result.notes)


def test_pieces_of_sentencepiece_are_merged_in_the_tokenizers_order(small: Any, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers

    pieces = ["<unk>", "<s>", "</s>", "<0x41>", "▁", "a", "b", "ab", "▁a"]
    backend = Tokenizer(
        models.BPE(
            vocab={piece: place for place, piece in enumerate(pieces)},
            merges=[("a", "b"), ("▁", "a")],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")
    path = tmp_path / "small.gguf"
    export_gguf(small, path, IDS, tokenizer=tokenizer)
    assert field(path, "tokenizer.ggml.model") == "llama" and field(path, "tokenizer.ggml.add_space_prefix") is True
    scores = field(path, "tokenizer.ggml.scores")
    assert scores[pieces.index("ab")] > scores[pieces.index("▁a")]
    assert field(path, "tokenizer.ggml.token_type")[:4] == [2, 1, 3, 6]
    assert len(field(path, "tokenizer.ggml.tokens")) == 40


def test_what_cannot_be_written_is_told_in_a_sentence(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small.gguf"
    with pytest.raises(ConfigError, match=r"'Q6_K' cannot be written; .*Q4_0"):
        GgufTypes(names=("Q6_K",))
    with pytest.raises(ConfigError, match="does not fit: it has a token 39, and the model's embedding 36 rows"):
        export_gguf(quantized(llama(vocab_size=36)), path, IDS % 36, tokenizer=characters())
    with pytest.raises(ConfigError, match="fast tokenizer"):
        export_gguf(small, path, IDS, tokenizer=object())
    with pytest.raises(ModelError, match=r"a Sequential; .*export_onnx"):
        export_gguf(corank.quantize(nn.Sequential(nn.Linear(32, 4)), torch.randn(8, 32), budget=0), path)
    with pytest.raises(ModelError, match="hidden_act='gelu'"):
        export_gguf(quantized(llama(hidden_act="gelu")), path, IDS)
    monkeypatch.delitem(gguf.GGMLQuantizationType._member_map_, "TQ1_0")
    with pytest.raises(ConfigError, match="does not know TQ1_0: pip install --upgrade gguf"):
        export_gguf(small, path, IDS)
    monkeypatch.undo()
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "gguf" else found(name, *rest))
    with pytest.raises(ConfigError, match=r"pip install 'corank\[gguf\]'"):
        export_gguf(small, path, IDS)
    assert not list(tmp_path.iterdir())
