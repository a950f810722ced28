"""Query-key reparametrization: equal to plain attention, its biases exact, what it cannot do refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from layers.tiny_vit import IMAGES, hf_vit, timm_vit
from torch import Tensor, nn

from corank.errors import ModelError
from corank.layers import ProductAttention, QueryKeyAttention, apply_structure, find_structure
from corank.layers.query_key import _Attention
from corank.layers.vit_attention import parts_of

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "timm": timm_vit,
    "timm without biases": lambda: timm_vit(qkv_bias=False, proj_bias=False),
    "timm, one head": lambda: timm_vit(num_heads=1),
    "timm, scaled norm": lambda: timm_vit(scale_attn_norm=True),
    "transformers": hf_vit,
    "transformers without biases": lambda: hf_vit(qkv_bias=False),
    "transformers' DeiT": lambda: hf_vit("DeiT"),
}


def logits(model: nn.Module, images: Tensor = IMAGES) -> Tensor:
    found = model(images.to(next(model.parameters()).dtype))
    return found if isinstance(found, Tensor) else found.logits


def changed(model: nn.Module, kind: str = "query-key", bits: int | None = None) -> nn.Module:
    own = copy.deepcopy(model)
    apply_structure(own, find_structure(model, logits, (kind,), bits))
    return own


@pytest.mark.parametrize("kind", ["query-key", "products"])
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_with_operands_in_float_it_is_plain_attention(name: str, kind: str) -> None:
    model = NETWORKS[name]().double()
    own = changed(model, kind)
    assert sum(isinstance(one, _Attention) for one in own.modules()) == 2
    torch.testing.assert_close(logits(own), logits(model), rtol=1e-11, atol=1e-11)
    model.float()
    torch.testing.assert_close(logits(changed(model, kind)), logits(model), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_bias_of_queries_alone_outlasts_the_softmax() -> None:
    model = timm_vit().double()
    own, tokens = changed(model), torch.randn(2, 5, 24, dtype=torch.float64)
    attention, plain = own.get_submodule("blocks.0.attn"), model.get_submodule("blocks.0.attn")
    assert isinstance(attention, QueryKeyAttention) and attention.key_bias is not None
    (query, query_bias), (key, key_bias), heads = *(parts_of(plain).query, parts_of(plain).key), 3
    assert query_bias is not None and key_bias is not None
    left, right = ((tokens @ w.T + b).unflatten(-1, (heads, -1)).transpose(1, 2)
                   for w, b in ((query, query_bias), (key, key_bias)))  # fmt: skip
    scores = left @ right.mT * 8**-0.5
    apart = scores - attention.scores(tokens)
    torch.testing.assert_close(apart, apart[..., :1].expand_as(apart))  # constant over the keys
    assert float(apart.abs().amax()) > 0.1
    attention.key_bias.zero_()
    assert float((logits(own) - logits(model)).abs().amax()) > 1e-3


def test_its_weights_are_one_product_a_head() -> None:
    model = timm_vit()
    plain, attention = model.get_submodule("blocks.0.attn"), changed(model).get_submodule("blocks.0.attn")
    weight = attention.get_parameter("query_key.weight")
    assert weight.shape == (3 * 24, 24)
    parts = parts_of(plain)
    for head in range(3):
        rows = slice(8 * head, 8 * head + 8)
        expected = (24 / 8) ** 0.5 * parts.query[0][rows].T @ parts.key[0][rows]
        torch.testing.assert_close(weight[24 * head : 24 * head + 24], expected)
    # H C^2 in the place of 2 C^2, and H C numbers in the place of the biases of queries and keys
    assert _count(attention) - _count(plain) == (3 - 2) * 24 * 24 + 3 * 24 - 2 * 24


def _count(module: nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())


def test_gradients_reach_the_product_and_dropout_works() -> None:
    own = changed(timm_vit(attn_drop_rate=0.5)).train()
    logits(own).square().sum().backward()
    weight = own.get_parameter("blocks.1.attn.query_key.weight")
    assert weight.grad is not None and float(weight.grad.abs().amax()) > 0
    torch.manual_seed(0)
    one = logits(own)
    assert not torch.equal(one, logits(own))


class Windows(nn.Module):
    """Attention of another kind, as the windows of Swin."""

    class WindowAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(8, 24)

        def forward(self, x: Tensor) -> Tensor:
            query, key, value = self.qkv(x).chunk(3, -1)
            return (query @ key.mT + 1).softmax(-1) @ value

    def __init__(self) -> None:
        super().__init__()
        self.first, self.attn = nn.Linear(192, 8), self.WindowAttention()

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(self.first(x.flatten(1))[None])


class Torchs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.attn = nn.Linear(192, 8), nn.MultiheadAttention(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        given = self.first(x.flatten(1))
        return self.attn(given, given, given)[0]


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "norms": (lambda: timm_vit(qk_norm=True), r"'blocks.0.attn' cannot be changed: this attention normalizes"),
    "windows": (Windows, "attention 'attn' cannot be changed: a WindowAttention is no attention of a kind that is"),
    "torch's": (Torchs, "attention 'attn' cannot be changed: a MultiheadAttention is no attention of a kind"),
    "none": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), "this Sequential has no attention to change"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_reparametrized_is_named(name: str) -> None:
    make, said = REFUSED[name]
    with pytest.raises(ModelError, match=said) as caught:
        find_structure(make(), logits, ("query-key",))
    assert "'cga-w4a4'" in str(caught.value) and "\n" not in str(caught.value)


def test_a_gate_and_other_projections_are_refused() -> None:
    model = timm_vit()
    attention = model.get_submodule("blocks.0.attn")
    attention.__dict__.pop("gate", None)
    attention.add_module("gate", nn.Linear(24, 24))
    with pytest.raises(ModelError, match="has a gate"):
        QueryKeyAttention(attention)
    attention._modules.pop("gate")
    attention.add_module("qkv", nn.Sequential(nn.Linear(24, 72)))
    with pytest.raises(ModelError, match="projects by a Sequential"):
        QueryKeyAttention(attention)


def test_a_class_that_computes_otherwise_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = timm_vit()
    kind, plain = type(model.get_submodule("blocks.0.attn")), type(model.get_submodule("blocks.0.attn")).forward

    def forward(self: nn.Module, x: Tensor, *given: Any, **named: Any) -> Tensor:
        return plain(self, x.flip(-1), *given, **named)

    monkeypatch.setattr(kind, "forward", forward)
    with pytest.raises(ModelError, match=r"computes something else than softmax\(q k\^T\) v"):
        find_structure(model, logits, ("query-key",))


def test_masks_are_refused() -> None:
    for attention in (changed(timm_vit()).get_submodule("blocks.0.attn"),
                      changed(hf_vit(), "products").get_submodule("vit.layers.0.attention")):  # fmt: skip
        tokens = torch.randn(2, 5, 24)
        attention(tokens, None)
        with pytest.raises(ModelError, match="takes no mask"):
            attention(tokens, torch.ones(5, 5))
        with pytest.raises(ModelError, match="takes no mask"):
            attention(tokens, is_causal=True)


@torch.no_grad()
def test_rounded_operands_are_those_of_the_formula() -> None:
    own = changed(timm_vit(), bits=3).double()
    attention, tokens = own.get_submodule("blocks.0.attn"), torch.randn(2, 5, 24, dtype=torch.float64)
    assert isinstance(attention, QueryKeyAttention) and attention.key_bias is not None
    for name, step in {"input": 0.25, "key": 0.5, "probability": 0.0625, "value": 0.125}.items():
        attention.operands.get_submodule(name).get_buffer("step").fill_(step)
    attention.operands.get_parameter("input.shift").fill_(0.125)

    def rounded(x: Tensor, step: float, low: int = -4, high: int = 3, shift: float = 0.0) -> Tensor:
        return ((x - shift) / step).round().clamp(low, high) * step

    x = rounded(tokens, 0.25, shift=0.125)
    weights = attention.query_key.weight.unflatten(0, (3, 24))
    expected = []
    for head in range(3):
        keys = rounded(tokens @ weights[head].T, 0.5)
        bias = attention.key_bias.unflatten(0, (3, 24))[head]
        scores = (x @ keys.mT + (x @ bias)[:, None]) * 24**-0.5
        values = rounded(attention.get_submodule("value")(tokens)[..., 8 * head : 8 * head + 8], 0.125)
        expected.append(rounded(scores.softmax(-1), 0.0625, 0, 7) @ values)
    found = attention.get_submodule("proj")(torch.cat(expected, -1))
    torch.testing.assert_close(attention(tokens), found)


def test_products_keep_queries_and_keys() -> None:
    own = changed(hf_vit(), "products", 4)
    attention = own.get_submodule("vit.layers.0.attention")
    assert isinstance(attention, ProductAttention)
    assert [name for name, _ in attention.named_children()] == ["v_proj", "o_proj", "operands", "query", "key"]
    assert set(dict(attention.operands.named_children())) == {"query", "key", "probability", "value"}
    # what was changed once is no attention of the original class
    with pytest.raises(ModelError, match="no attention of a kind that is known"):
        apply_structure(own, [{"kind": "query-key", "module": "vit.layers.0.attention", "bits": None}])
