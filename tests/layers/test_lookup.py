"""Coded tables: rows decoded by themselves equal those of the whole table, for every codec and call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from corank.adapters import code_factors, decompose
from corank.codecs import Codec, ICQuant, KMeans, PowerOfTwo, RateUniform, Uniform
from corank.coded_weight import CodedWeight
from corank.layers import CodedEmbedding, CodedEmbeddingBag, CodedLayerState
from corank.storage.bits import pack, unpack_at

CODECS: dict[str, Codec] = {
    "uniform": Uniform(3), "groups": Uniform(4, group=4), "layer": Uniform(5, group=-1), "rate": RateUniform.of(2.0),
    "kmeans": KMeans(3), "power of two": PowerOfTwo(4), "icquant": ICQuant(2),
}  # fmt: skip


def coded(table: nn.Module, codec: Codec, rank: int = 0) -> Any:
    weight = table.get_parameter("weight").detach()
    book = codec.fit(weight)
    code = CodedWeight(book.nearest(weight), book)
    codec = codec.with_measured_size(book)
    adapter = code_factors(decompose((weight - code.decode())[None], "svd", {}).truncate(rank), 8) if rank else None
    kind = CodedEmbedding if isinstance(table, nn.Embedding) else CodedEmbeddingBag
    made = kind(table, codec, rank)
    made.fill(CodedLayerState(codec, code, adapter, 8), None)
    return made.eval()


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("rank", [0, 2])
def test_rows_equal_those_of_the_table(name: str, rank: int) -> None:
    table = coded(nn.Embedding(13, 10), CODECS[name], rank)
    ids = torch.tensor([[12, 0, 5], [5, 7, 12]])
    assert torch.allclose(table(ids), table.weight[ids], atol=1e-6)
    assert table._cache is None and not any(
        buffer.numel() >= 130 for buffer in table.buffers() if buffer.dtype.is_floating_point
    )


def test_ids_outside_the_table_are_refused() -> None:
    table = coded(nn.Embedding(13, 10), Uniform(3))
    for wrong in (13, -1):
        with pytest.raises(IndexError, match="13 rows"):
            table(torch.tensor([0, wrong]))
    assert table(torch.zeros(0, dtype=torch.int64)).shape == (0, 10)


def test_long_vectors_are_cut_as_torch_cuts_them() -> None:
    table = coded(nn.Embedding(13, 10, padding_idx=2, max_norm=1.0), Uniform(4))
    plain = nn.Embedding(13, 10, max_norm=1.0, _weight=table.weight.clone()).requires_grad_(False)
    ids = torch.arange(13)
    assert torch.allclose(table(ids), plain(ids), atol=1e-6)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 3, -1])
def test_bags(mode: str, padding: int | None) -> None:
    bag = nn.EmbeddingBag(13, 10, mode=mode, padding_idx=padding)
    small = coded(bag, Uniform(4))
    plain = nn.EmbeddingBag(13, 10, mode=mode, padding_idx=padding, _weight=small.weight.clone())
    ids, offsets = torch.tensor([3, 1, 4, 1, 12, 9, 2, 12]), torch.tensor([0, 3, 5])
    assert torch.allclose(small(ids, offsets), plain(ids, offsets), atol=1e-6)
    weights: Tensor | None = torch.rand(2, 4) if mode == "sum" else None
    assert torch.allclose(small(ids.reshape(2, 4), None, weights), plain(ids.reshape(2, 4), None, weights), atol=1e-6)


@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_are_found_where_they_are(bits: int) -> None:
    codes = torch.randint(1 << bits, (61,), dtype=torch.uint8)
    places = torch.randint(61, (5, 20))
    assert torch.equal(unpack_at(pack(codes, bits), bits, places), codes[places])
    assert torch.equal(unpack_at(pack(codes, bits), bits, torch.tensor([60])), codes[60:])
