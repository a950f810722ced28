"""Causal language models from quantize to file and back: targets, adapters, tied embeddings, bit-identical outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.data import TokenSet, load_sequences
from corank.models import resolve
from corank.storage.contents import float_bytes

transformers = pytest.importorskip("transformers")

IDS = torch.randint(40, (24, 32), generator=torch.Generator().manual_seed(0))


def llama(tied: bool) -> Any:
    """A tiny Llama with weights large enough to matter."""
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def tied() -> Any:
    return llama(tied=True)


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("preset", ["nearest", "fast"])
def test_a_file_gives_the_same_outputs(tied: Any, tmp_path: Path, preset: str) -> None:
    before = logits(tied)
    small = corank.quantize(tied, IDS, bits=4, preset=preset, search="greedy")
    corank.save(small, tmp_path / "small.safetensors")
    again = corank.load(tmp_path / "small.safetensors", llama(tied=True))
    assert torch.equal(logits(again), logits(small)) and torch.equal(logits(tied), before)
    assert not torch.equal(logits(small), before)
    found = corank.evaluate(small, IDS, tied)
    assert found.nats is not None and found.kl is not None and found.kl < 0.5


def test_every_linear_layer_is_coded_at_the_bits_asked_for(tied: Any) -> None:
    small = corank.quantize(tied, TokenSet(IDS), bits=3, preset="fast", budget=0.5, search="greedy")
    run = corank.inspect(small)
    assert len(run["layers"]) == 15 and {layer["bits"] for layer in run["layers"]} == {3}
    assert sum(layer["rank"] for layer in run["layers"]) > 0
    assert set(run["skipped"]) == {"model.embed_tokens"}
    assert "tied to that of 'lm_head'" in run["skipped"]["model.embed_tokens"]


def test_embedding_and_head_get_the_bits_of_all_layers() -> None:
    small = corank.quantize(llama(tied=False), IDS, bits=3, preset="nearest")
    bits = {layer["name"]: layer["bits"] for layer in corank.inspect(small)["layers"]}
    assert {"lm_head", "model.embed_tokens"} <= set(bits) and set(bits.values()) == {3}


def test_tied_embeddings_are_stored_once(tied: Any) -> None:
    sizes = [
        corank.inspect(corank.quantize(llama(one), IDS, bits=4, preset="nearest"))["stored_bytes"]
        for one in (True, False)
    ]
    embedding = 40 * 32
    assert float_bytes(llama(tied=False)) - float_bytes(tied) == 4 * embedding
    assert 0.4 * embedding < sizes[1] - sizes[0] < embedding  # a head of its own is coded in 4 bits


def test_adapters_and_search_bring_the_model_nearer(tied: Any) -> None:
    def divergence(**options: Any) -> float:
        found = corank.evaluate(corank.quantize(tied, IDS, bits=2, **options), IDS, tied)
        assert found.kl is not None
        return found.kl

    plain = divergence(preset="fast", budget=0)
    assert divergence(preset="nearest") > plain
    searched = divergence(preset="fast", budget=0.5, search=corank.CoRa(iterations=3))
    assert searched < plain


def test_refinement_of_a_language_model(tied: Any) -> None:
    refinement = corank.Refinement(iterations=8, batch_size=8)
    small = corank.quantize(tied, IDS, bits=2, preset="fast", budget=0, refinement=refinement)
    plain = corank.quantize(tied, IDS, bits=2, preset="fast", budget=0)
    kl = [corank.evaluate(one, IDS, tied).kl for one in (small, plain)]
    assert kl[0] is not None and kl[1] is not None and kl[0] <= kl[1]


def test_masked_batches(tied: Any) -> None:
    mask = torch.ones_like(IDS)
    mask[:, 20:] = 0
    batches = [
        {"input_ids": ids, "attention_mask": kept} for ids, kept in zip(IDS.split(8), mask.split(8), strict=True)
    ]
    small = corank.quantize(tied, batches, bits=4, preset="fast", budget=0)
    assert corank.evaluate(small, batches, tied).tokens == 24 * 19


def test_a_model_that_returns_its_logits_bare() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.middle, self.head = nn.Embedding(40, 16), nn.Linear(16, 16), nn.Linear(16, 40)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(torch.relu(self.middle(self.words(ids))))

    model = Plain()
    small = corank.quantize(model, IDS.to(torch.int16), bits=3, budget=0.5, search=corank.CoRa(iterations=3))
    found = corank.evaluate(small, IDS, model)
    assert found.nats is not None and found.kl is not None and found.kl < 0.1


def test_stories(shared: Path) -> None:
    model = resolve(f"hf:{shared / 'models/stories260k'}").model
    tokens = f"{shared / 'data/stories260k_tokens.npz'}"
    test = load_sequences(f"{tokens}:test[:8]")
    small = corank.quantize(model, load_sequences(f"{tokens}:calibration[:16]"), bits=4, preset="fast", search="greedy")
    original, found = corank.evaluate(model, test), corank.evaluate(small, test, model)
    assert original.nats == pytest.approx(1.30, abs=0.05)
    assert found.nats is not None and original.nats is not None and found.nats < original.nats + 0.1
