"""Text of a language model's own: drawn by its distribution, the same by seed, with and without a cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.errors import ConfigError, DataError, ModelError


class Chain(nn.Module):
    """The next token hangs on the last one alone: a table of chances."""

    def __init__(self, chances: Tensor) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(chances.log())

    def forward(self, ids: Tensor) -> Tensor:
        return self.table(ids)


CHANCES = torch.tensor([[0.1, 0.9, 0.0], [0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])


def test_tokens_follow_each_other_by_the_models_chances() -> None:
    ids = corank.draw_tokens(Chain(CHANCES), 300, 64, first=2).ids
    assert ids.shape == (300, 64) and ids.dtype == torch.int64
    assert bool((ids[:, 0] == 2).all()) and bool((ids[:, 1] == 1).all())
    pairs = torch.zeros(3, 3).index_put_((ids[:, :-1].flatten(), ids[:, 1:].flatten()), torch.ones(()), accumulate=True)
    torch.testing.assert_close(pairs / pairs.sum(1, keepdim=True), CHANCES, atol=0.02, rtol=0)
    assert bool((pairs[CHANCES == 0] == 0).all())


def test_the_seed_says_all() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (corank.draw_tokens(Chain(CHANCES), 4, 16, first=0, seed=seed).ids for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_cache_changes_nothing() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        vocab_size=20, bos_token_id=3,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).double().eval()
    told: list[tuple[int, int]] = []
    found = corank.draw_tokens(model, 3, 12, progress=lambda _what, done, total: told.append((done, total)))
    assert bool((found.ids[:, 0] == 3).all()) and told[-1] == (36, 36)
    model.config.use_cache = False
    assert torch.equal(corank.draw_tokens(model, 3, 12).ids, found.ids)
    with pytest.raises(DataError, match="20 is none"):
        model.config.use_cache = True
        corank.draw_tokens(model, 1, 4, first=20)


def test_it_is_data_for_both_verbs() -> None:
    model = nn.Sequential(nn.Embedding(8, 16), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8))
    data = corank.draw_tokens(model, 8, 16, first=0)
    small = corank.quantize(model, data, bits=4, budget=0.0)
    assert corank.evaluate(small, data, model).tokens == 8 * 15


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"sequences": 0}, ConfigError, "sequences=0: a whole number from 1"),
        ({"length": 1}, ConfigError, "length=1: a whole number from 2"),
        ({"first": None}, DataError, "does not say what a sequence begins with"),
    ],
)
def test_refusals(given: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        corank.draw_tokens(Chain(CHANCES), **{"first": 0, **given})


def test_other_outputs_are_no_text() -> None:
    with pytest.raises(ModelError, match="no logits"):
        corank.draw_tokens(nn.Sequential(nn.Embedding(3, 4), nn.Flatten()), first=0)
