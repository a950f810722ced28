"""Calibration samples in every form, and what is refused."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from corank.calibration import Samples, run, token_ids
from corank.errors import DataError, ModelError
from corank.watching import input_of, watched

NAN = torch.full((2, 3), float("nan"))


def test_tensor() -> None:
    data = torch.randn(10, 3)
    samples = Samples.of(data, 7, batch_size=3)
    assert [len(batch) for batch in samples.batches] == [3, 3, 1]
    assert torch.equal(torch.cat(list(samples.batches)), data[:7])
    assert len(samples) == 7 and samples.stacked


def test_pairs_drop_their_labels() -> None:
    data = [(torch.randn(4, 3), torch.zeros(4)) for _ in range(3)]
    samples = Samples.of(data, 10)
    assert len(samples) == 10
    assert torch.equal(samples.batches[2], data[2][0][:2])


@pytest.mark.parametrize("kind", [dict, UserDict])
def test_mappings_drop_their_labels(kind: Any) -> None:
    batch = kind({"x": torch.randn(4, 3), "mask": torch.ones(4, 3).bool(), "labels": torch.zeros(4)})
    samples = Samples.of([batch], 3)
    assert set(samples.batches[0]) == {"x", "mask"}
    assert len(samples.first(2)["mask"]) == 2


@pytest.mark.parametrize("kind", [dict, UserDict])
def test_a_mapping_alone_is_cut_as_a_tensor_is(kind: Any) -> None:
    ids, mask = torch.arange(60).reshape(20, 3), torch.ones(20, 3, dtype=torch.int64)
    samples = Samples.of(kind({"input_ids": ids, "attention_mask": mask, "labels": torch.zeros(20)}), 18, 8)
    assert [set(batch) for batch in samples.batches] == 3 * [{"input_ids", "attention_mask"}]
    assert torch.equal(torch.cat([batch["input_ids"] for batch in samples.batches]), ids[:18])
    images = {"x": torch.randn(20, 3, 4, 4)}
    found = Samples.of(kind(images), 18, 8)
    assert [len(batch["x"]) for batch in found.batches] == [8, 8, 2]
    assert torch.equal(torch.cat([batch["x"] for batch in found.batches]), images["x"][:18])


def test_only_as_many_batches_are_read_as_needed() -> None:
    def endless():
        while True:
            yield torch.randn(4, 3)

    assert len(Samples.of(endless(), 9)) == 9


def test_samples_of_different_sizes() -> None:
    samples = Samples.of([torch.randn(2, 3, 8), torch.randn(3, 3, 6)], 100)
    assert len(samples) == 5 and not samples.stacked
    assert samples.rebatched(1) is samples
    load = samples.loader()
    draws = samples.draws(4, torch.Generator().manual_seed(0))
    shapes = {tuple(load(next(draws)).shape) for _ in range(2)}
    assert shapes == {(2, 3, 8), (3, 3, 6)}


def test_take_and_rebatched() -> None:
    samples = Samples.of(torch.arange(10.0)[:, None], 10, batch_size=4)
    assert len(samples.take(5)) == 8
    again = samples.rebatched(3)
    assert [len(batch) for batch in again.batches] == [3, 3, 3, 1]
    assert torch.equal(torch.cat(list(again.batches)), torch.cat(list(samples.batches)))


@pytest.mark.parametrize("size", [1, 3, 4, 10])
def test_draws_see_every_sample_in_turn(size: int) -> None:
    samples = Samples.of(torch.arange(10.0)[:, None], 10, batch_size=4)
    draws = samples.draws(size, torch.Generator().manual_seed(0))
    load = samples.loader()
    seen: list[float] = []
    for _ in range(10 // size):
        batch = load(next(draws))
        assert len(batch) == size
        seen += batch.flatten().tolist()
    assert len(set(seen)) == len(seen) == 10 // size * size
    same = samples.draws(size, torch.Generator().manual_seed(0))
    assert load(next(same)).flatten().tolist() == seen[:size]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (torch.zeros(0, 3), "empty"),
        ([], "empty"),
        ([torch.zeros(0, 3)], "empty"),
        (torch.zeros(3), r"shape \(3,\)"),
        (torch.tensor(1.0), "shape"),
        (3, "int"),
        (None, "NoneType"),
        ("images/", r"corank\.data\.load"),
        (nn.Linear(2, 2), "Linear"),
        ([3], "int"),
        (["a.png"], "str"),
        ([{"x": "text"}], "mapping of tensors"),
        ([{}], "dict"),
        ([torch.tensor(1.0)], "Tensor"),
        (NAN, "NaN"),
        ([{"x": torch.ones(2, 3), "y": NAN}], "NaN"),
        (torch.full((2, 3), float("inf")), "infinite"),
        ([{"x": torch.ones(4, 3), "y": torch.ones(3, 3)}], "4.*3"),
    ],
)
def test_bad_data(data: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Samples.of(data, 8)


@pytest.mark.parametrize("limit", [0, -1])
def test_no_samples_wanted(limit: int) -> None:
    with pytest.raises(DataError):
        Samples.of(torch.ones(4, 3), limit)


class Adds(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def test_run() -> None:
    one, two = torch.randn(2, 3), torch.randn(2, 3)
    assert torch.equal(run(Adds(), {"y": one, "x": two}), one + two)
    with pytest.raises(DataError, match=r"shape \(2, 3\): "):
        run(Adds(), one)
    with pytest.raises(DataError, match=r"shape \(2, 3\).*mat1"):
        run(nn.Linear(4, 1), one)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.int64])
def test_token_ids_of_every_width(dtype: torch.dtype) -> None:
    ids = torch.randint(200, (10, 64)).to(dtype)
    samples = Samples.of(ids, 7, batch_size=3)
    assert samples.are_tokens and samples.stacked and len(samples) == 7
    assert torch.equal(torch.cat(list(samples.batches)), ids[:7].long())
    named = Samples.of([{"input_ids": ids, "attention_mask": torch.ones_like(ids)}], 10)
    assert named.are_tokens and token_ids(named.batches[0]) is named.batches[0]["input_ids"]
    assert not Samples.of(torch.randn(4, 3), 4).are_tokens


def test_batches_of_tokens_are_counted_in_tokens() -> None:
    samples = Samples.of(torch.randint(200, (20, 128)), 20, batch_size=8)  # 8 samples: 512 tokens, 4 sequences
    assert [len(batch) for batch in samples.batches] == [4, 4, 4, 4, 4]
    assert [len(batch) for batch in samples.rebatched(12).batches] == [6, 6, 6, 2]
    assert next(samples.draws(4, torch.Generator())).shape == (2,)
    assert next(samples.draws(1, torch.Generator())).shape == (1,)
    short = Samples.of(torch.randint(200, (20, 5)), 20, batch_size=8)
    assert [len(batch) for batch in short.batches] == [8, 8, 4]


def test_errors_of_hooks_are_not_blamed_on_the_model() -> None:
    model = nn.Sequential(nn.Linear(3, 2))

    def failing(_module: nn.Module, _args: object, _named: object, _output: Tensor) -> None:
        torch.zeros(2) @ torch.zeros(3)

    with watched({"0": model[0]}, lambda _: failing), pytest.raises(RuntimeError, match="inconsistent tensor size"):
        run(model, torch.zeros(4, 3))
    with pytest.raises(DataError, match="could not run on a batch of shape"):
        run(model, torch.zeros(4, 5))


def test_nor_are_the_errors_that_hooks_raise_on_purpose() -> None:
    def refusing(_module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        input_of((), {})

    model = nn.Sequential(nn.Linear(3, 2))
    with watched({"0": model[0]}, lambda _: refusing, before=True), pytest.raises(ModelError, match="a tensor, are"):
        run(model, torch.zeros(4, 3))


@pytest.mark.parametrize(
    ("model", "batch", "said"),
    [
        (nn.Conv2d(1, 4, 3), torch.ones(2, 3, 8, 8), r"reads images of 1 channel.*--mean 0\.5 --std 0\.5"),
        (nn.Conv2d(3, 4, 3), torch.ones(2, 1, 8, 8), r"reads images of 3 channels.*--mean 0\.485,0\.456,0\.406"),
        (nn.Embedding(5, 3), torch.ones(2, 4), r"looks up token ids.*--length"),
        (nn.Linear(3, 3).to("meta"), torch.ones(2, 3), "is on the meta device"),
    ],
)
def test_hints_where_the_models_words_do_not_tell(model: nn.Module, batch: torch.Tensor, said: str) -> None:
    with pytest.raises(DataError, match=said):
        run(model, batch)


def test_keys_and_values_for_tokens_to_come_are_not_kept() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    torch.manual_seed(0)
    llama, ids = transformers.LlamaForCausalLM(config).eval(), torch.randint(40, (2, 8))
    assert config.use_cache
    with torch.no_grad():
        whole = llama(ids)
        for batch in (ids, {"input_ids": ids}):
            found = run(llama, batch)
            assert found.past_key_values is None and torch.equal(found.logits, whole.logits)
    assert config.use_cache and whole.past_key_values is not None


def test_a_use_cache_of_ones_own_is_left_alone() -> None:
    class Own(nn.Module):
        def forward(self, x: Tensor, use_cache: bool = True) -> Tensor:
            return x + 1 if use_cache else x

    assert torch.equal(run(Own(), torch.ones(2)), torch.full((2,), 2.0))
