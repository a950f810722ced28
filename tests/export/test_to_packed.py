"""Packed language models: from a file or in memory, tied tables, the same text, and what they refuse."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.layers import CodedLayer, CodesLinear, TiedEmbedding
from corank.models import resolve
from corank.storage import artifact

transformers = pytest.importorskip("transformers")

IDS = torch.randint(40, (8, 24), generator=torch.Generator().manual_seed(0))


def llama(tied: bool = True) -> Any:
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return corank.quantize(llama(), IDS, bits=4, preset="nearest", budget=0)


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(IDS).logits


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_packed_it_computes_the_same(small: nn.Module) -> None:
    expected, before = logits(small), copy.deepcopy(small.state_dict())
    packed = corank.to_packed(small)
    same(logits(packed), expected)
    assert not any(isinstance(one, CodedLayer) for one in packed.modules())
    assert all(torch.equal(one, before[name]) for name, one in small.state_dict().items())
    assert isinstance(packed.get_submodule("model.embed_tokens"), TiedEmbedding)
    assert max(one.numel() for one in packed.parameters()) <= 32
    for other in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        assert torch.equal(logits(other), logits(packed))
        assert other.model.embed_tokens.layer is other.lm_head
    assert float((logits(copy.deepcopy(packed).bfloat16()).float() - expected).abs().max()) < 0.1
    found = corank.evaluate(packed, IDS, small)
    assert found.kl is not None and abs(found.kl) < 1e-5 and found.agreement == 100


@pytest.mark.parametrize("coder", ["fixed", "rans"])
def test_a_file_is_loaded_packed(small: nn.Module, tmp_path: Path, coder: str) -> None:
    path = tmp_path / "small.safetensors"
    corank.save(small, path, coder)
    composed: list[CodedLayer] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CodedLayer, "_composed", lambda layer: composed.append(layer))
        packed = corank.load(path, llama, packed=True)
    assert not composed
    same(logits(packed), logits(small))
    assert torch.equal(logits(packed), logits(corank.to_packed(small)))


def test_auto_packs_large_layers(small: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "small.safetensors"
    corank.save(small, path)
    monkeypatch.setattr(artifact, "LARGE", 48 * 32)
    packed = corank.load(path, llama, packed="auto")
    kinds = {name: type(one) for name, one in packed.named_modules() if isinstance(one, (CodesLinear, CodedLayer))}
    assert {name.rpartition(".")[2] for name, kind in kinds.items() if kind is CodesLinear} == {
        "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    same(logits(packed), logits(small))
    with pytest.raises(corank.ConfigError, match="packed='always': True, False, or \"auto\""):
        corank.load(path, llama, packed="always")


def test_untied_tables_and_gpt2() -> None:
    gpt2 = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=40, n_positions=32, n_embd=32, n_layer=1, n_head=2)
    ).eval()
    for model in (llama(tied=False), gpt2):
        coded = corank.quantize(model, IDS, bits=4, preset="nearest", budget=0)
        same(logits(corank.to_packed(coded)), logits(coded))


def test_a_packed_model_is_not_saved(small: nn.Module, tmp_path: Path) -> None:
    packed = corank.to_packed(small)
    for call in (lambda: corank.save(packed, tmp_path / "x.safetensors"), lambda: corank.inspect(packed)):
        with pytest.raises(corank.ModelError, match="has packed layers, which are for running; take the model"):
            call()
    assert not list(tmp_path.iterdir())
    with pytest.raises(corank.ModelError, match="no layer is of packed codes"):
        corank.to_packed(llama())


@pytest.mark.parametrize("name", ["stories260k", "shakespeare7m"])
def test_the_same_text(shared: Path, name: str) -> None:
    source = resolve(f"hf:{shared / 'models' / name}")
    ids = torch.randint(int(source.model.config.vocab_size), (4, 32), generator=torch.Generator().manual_seed(1))
    coded = corank.quantize(source.model, ids, bits=4, preset="nearest", budget=0)
    packed = corank.to_packed(coded)
    asked = {"max_new_tokens": 24, "do_sample": False, "min_new_tokens": 24}
    with torch.inference_mode():
        assert torch.equal(packed.generate(ids[:1, :4], **asked), coded.generate(ids[:1, :4], **asked))
