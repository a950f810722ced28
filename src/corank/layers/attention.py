"""Attention whose weights are read from layers: computed by calling them where those are watched."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.layers.held import Reader, is_watched, multiplied, register_reader

__all__ = ["AttentionReader"]

_FURTHER = ("key_padding_mask", "need_weights", "attn_mask", "average_attn_weights", "is_causal")


@register_reader(nn.MultiheadAttention)
class AttentionReader(Reader):
    """A ``MultiheadAttention``. Its projections see queries, keys and values, the last one what attention gives.

    Packed projections of queries, keys and values are one matrix, whose inputs are all three.
    """

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **named: Any) -> Any:
        module = cast(nn.MultiheadAttention, self)
        if module.training or not is_watched(module._modules.values()):
            return super().forward(query, key, value, *args, **named)  # pyright: ignore[reportAttributeAccessIssue]
        return _attended(module, (query, key, value), {**dict(zip(_FURTHER, args, strict=False)), **named})


def _attended(
    module: nn.MultiheadAttention, given: tuple[Tensor, Tensor, Tensor], further: dict[str, Any]
) -> tuple[Tensor, Tensor | None]:
    """The module's output: torch's own attention between projections that the layers compute."""
    projected = [one.transpose(0, 1) if one.dim() == 3 else one for one in _projected(module, given)]
    same = torch.eye(module.embed_dim, dtype=projected[0].dtype, device=projected[0].device)
    attended, weights = F.multi_head_attention_forward(
        projected[0], projected[1], projected[2], module.embed_dim, module.num_heads, None, module.in_proj_bias,
        module.bias_k, module.bias_v, module.add_zero_attn, 0.0, same, None, training=False,
        use_separate_proj_weight=True, q_proj_weight=same, k_proj_weight=same, v_proj_weight=same, **further,
    )  # fmt: skip
    if attended.dim() == 2:
        return module.out_proj(attended), weights
    output = module.out_proj(attended.transpose(0, 1))
    return output if module.batch_first else output.transpose(0, 1), weights


def _projected(module: nn.MultiheadAttention, given: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
    """Queries, keys and values without their bias, sequences first: masks of padding are told by that shape."""
    turned = [one if module.batch_first or one.dim() == 2 else one.transpose(0, 1) for one in given]
    if not module._qkv_same_embed_dim:
        return [multiplied(module, f"{part}_proj_weight", one) for part, one in zip("qkv", turned, strict=True)]
    found: list[tuple[Tensor, tuple[Tensor, ...]]] = []  # what was multiplied already, and its three parts
    parts = []
    for place, one in enumerate(given):
        known = next((three for before, three in found if before is one), None)
        if known is None:
            known = multiplied(module, "in_proj_weight", turned[place]).chunk(3, -1)
            found.append((one, known))
        parts.append(known[place])
    return parts
