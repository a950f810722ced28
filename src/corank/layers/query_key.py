"""Query-key reparametrization of attention (QKR of OFQ, arXiv 2302.02210, section 4.3): one weight for both.

Queries and keys are two weights of which the scores are a product; while both are rounded, each one's oscillations
multiply the other's. Their product is a weight itself, ``W_h = W_q,h^T W_k,h`` of each head, and is rounded once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.errors import ModelError
from corank.layers.half import HalfModule, half
from corank.layers.rounded_operand import RoundedOperand
from corank.layers.vit_attention import AttentionParts, parts_of

__all__ = ["ProductAttention", "QueryKeyAttention"]


class _Attention(HalfModule, ABC):
    """Attention whose two products may round what they multiply."""

    def __init__(self, parts: AttentionParts, training: bool) -> None:
        super().__init__()
        self._heads, self._dropout, self._in_pair = parts.heads, parts.dropout, parts.in_pair
        self._value, self._after = parts.value_name, tuple(parts.after)
        self.add_module(parts.value_name, _linear(*parts.value))
        for name, module in parts.after.items():
            self.add_module(name, module)
        self.operands = nn.ModuleDict()
        self.train(training)

    @abstractmethod
    def scores(self, inputs: Tensor) -> Tensor:
        """``(N, heads, T, T)`` of inputs ``(N, T, C)``: what the softmax takes, keys last."""

    def forward(self, hidden: Tensor, mask: object = None, *_: object, **named: object) -> Any:
        """Inputs ``(N, T, C)``, as the original class is called.

        Raises:
            ModelError: for a mask.
        """
        if any(one is not None and one is not False for one in (mask, *map(named.get, _MASKS))):
            raise ModelError("attention whose products are changed takes no mask; vision transformers give it none")
        weights = F.dropout(self.scores(hidden).softmax(-1), self._dropout, self.training)
        value = self._rounded("value", cast(nn.Module, self._modules[self._value])(hidden))
        value = value.unflatten(-1, (self._heads, -1)).transpose(1, 2)
        found = (self._rounded("probability", weights) @ value).transpose(1, 2).flatten(2)
        for name in self._after:
            found = cast(nn.Module, self._modules[name])(found)
        return (found, weights) if self._in_pair else found

    def _rounded(self, name: str, operand: Tensor) -> Tensor:
        return self.operands[name](operand) if name in self.operands else operand

    def _round(self, bits: int | None, channels: dict[str, int], like: Tensor) -> None:
        """Makes the operands of these names and numbers of channels rounded, to so many bits."""
        if bits is not None:
            made = {name: RoundedOperand(bits, count, like) for name, count in channels.items()}
            self.operands.update(made)
            self.operands.train(self.training)


class QueryKeyAttention(_Attention):
    """``softmax(C^(-1/2) (X (W_h X^T) + u_h X^T)) V`` with one weight ``W_h (C, C)`` of each head in the place of
    queries and keys: the rows of the linear layer ``query_key``, ``C`` to ``heads * C``.

    ``W_h = sqrt(C) scale W_q,h^T W_k,h``, so that its numbers are of the size of other layers' weights. Of the biases,
    ``q_i k_j`` has two terms that are the same for all keys ``j``, which a softmax does not see; the third is
    ``u_h x_j`` with ``u_h = sqrt(C) scale W_k,h^T b_q,h``, kept in ``key_bias (heads * C,)`` where queries have a bias.
    The paper drops it.

    Args:
        attention: of timm or transformers; its values and what follows them are taken over.
        bits: that the products' operands are rounded to: "input" ``X``, "key" ``W_h X^T`` (signed, with a shift of
            each channel), "probability" (from zero) and "value"; None leaves them in float.

    Raises:
        ModelError: for an attention that cannot be written so.
    """

    key_bias: nn.Parameter | None

    def __init__(self, attention: nn.Module, bits: int | None = None) -> None:
        parts = parts_of(attention)
        super().__init__(parts, attention.training)
        (query, query_bias), key = parts.query, parts.key[0]
        channels = query.shape[1]
        with torch.no_grad():
            wide = torch.promote_types(query.dtype, torch.float32)
            left, right = (one.detach().to(wide).unflatten(0, (parts.heads, -1)) for one in (query, key))
            size = parts.scale * channels**0.5
            product = (left.transpose(1, 2) @ right).mul(size).flatten(0, 1)
            self.query_key = _linear(product.to(query.dtype), None)
            moved = None
            if query_bias is not None:
                biases = query_bias.detach().to(wide).unflatten(0, (parts.heads, 1, -1))
                moved = nn.Parameter((biases @ right).mul(size).flatten().to(query.dtype))
            self.register_parameter("key_bias", moved)
        values = parts.value[0].shape[0]
        self._round(bits, {"input": channels, "key": parts.heads * channels, "probability": 0, "value": values}, query)
        self.train(attention.training)

    def scores(self, inputs: Tensor) -> Tensor:
        keys = self._rounded("key", self.query_key(inputs)).unflatten(-1, (self._heads, -1))
        rounded = self._rounded("input", inputs)
        # Each token with all keys of all heads at once: (T, C) times (C, heads * T).
        found = rounded @ keys.permute(0, 3, 2, 1).flatten(2)
        found = found.unflatten(-1, (self._heads, -1)).transpose(1, 2)
        if self.key_bias is not None:
            moved = rounded @ half(self.key_bias).unflatten(0, (self._heads, -1)).mT.to(rounded.dtype)
            found = found + moved.transpose(1, 2).unsqueeze(2)
        return found * inputs.shape[-1] ** -0.5


class ProductAttention(_Attention):
    """``softmax(scale q k^T) v``, what is multiplied rounded: "query", "key", "probability" and "value".

    Args:
        attention: of timm or transformers; its values and what follows them are taken over, and packed projections are
            three layers, "query", "key" and "value".
        bits: that the operands are rounded to; None leaves them in float.

    Raises:
        ModelError: for another module.
    """

    def __init__(self, attention: nn.Module, bits: int | None = None) -> None:
        parts = parts_of(attention)
        super().__init__(parts, attention.training)
        self._scale = parts.scale
        self.query, self.key = _linear(*parts.query), _linear(*parts.key)
        size, values = parts.query[0].shape[0], parts.value[0].shape[0]
        self._round(bits, {"query": size, "key": size, "probability": 0, "value": values}, parts.query[0])
        self.train(attention.training)

    def scores(self, inputs: Tensor) -> Tensor:
        queries = self._rounded("query", self.query(inputs)).unflatten(-1, (self._heads, -1))
        keys = self._rounded("key", self.key(inputs)).unflatten(-1, (self._heads, -1))
        return queries.transpose(1, 2) @ keys.permute(0, 2, 3, 1) * self._scale


_MASKS = ("attn_mask", "attention_mask", "is_causal", "head_mask", "layer_head_mask")


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A layer of these numbers, copied; nothing is drawn for it."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta", dtype=weight.dtype)
    made.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone())
    return made
