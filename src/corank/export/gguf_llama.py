"""Llama and Mistral as llama.cpp's ``llama``: its settings, the names of its tensors, the order of their rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from corank.errors import ModelError

__all__ = ["ARCHITECTURE", "check_llama", "gguf_name", "in_their_order", "rotary_factors", "settings"]

ARCHITECTURE = "llama"
_KINDS = ("llama", "mistral")
_ROTATIONS = ("default", "linear", "llama3")
_PLACES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_ROTATED = re.compile(r"self_attn\.([qk])_proj\.(?:weight|bias)$")


def check_llama(model: nn.Module) -> Any:
    """The configuration of a model that llama.cpp's ``llama`` computes.

    Raises:
        ModelError: for any other model, with what is in the way.
    """
    config = getattr(model, "config", None)
    kind = getattr(config, "model_type", None)
    if kind not in _KINDS or not hasattr(model, "lm_head"):
        raise ModelError(
            f"GGUF is written for causal language models of transformers of the kinds {' and '.join(_KINDS)}, not for "
            f"a {type(model).__name__}; corank.export.export_onnx takes any model"
        )
    assert config is not None
    told = config.to_dict()
    rotation = (told.get("rope_parameters") or {}).get("rope_type", "default")
    refused = {
        f"hidden_act={told['hidden_act']!r}, and llama.cpp computes 'silu'": told["hidden_act"] != "silu",
        f"rope_type={rotation!r}; {', '.join(_ROTATIONS)} are known": rotation not in _ROTATIONS,
        "attention within a sliding window, which llama.cpp's llama has not": bool(told.get("sliding_window")),
    }
    for reason, holds in refused.items():
        if holds:
            raise ModelError(f"this {type(model).__name__} cannot be written to GGUF: it has {reason}")
    return config


def settings(config: Any) -> dict[str, int | float]:
    """``llama.*`` of the file, without the prefix."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return {
        "vocab_size": config.vocab_size,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.dimension_count": head,
        "rope.freq_base": float(config.rope_parameters["rope_theta"]),
    }


def rotary_factors(model: nn.Module, config: Any) -> Tensor | None:
    """``rope_freqs.weight`` ``(head / 2,)``: by what each frequency is divided; None where all are as they are."""
    given = settings(config)
    half = int(given["rope.dimension_count"]) // 2
    plain = 1.0 / float(given["rope.freq_base"]) ** (torch.arange(half, dtype=torch.float64) / half)
    buffers = dict(model.named_buffers())
    factors = plain / buffers["model.rotary_emb.inv_freq"].detach().cpu().double()
    return None if torch.allclose(factors, torch.ones_like(factors), rtol=1e-5) else factors.float()


def gguf_name(name: str) -> str:
    """What llama.cpp calls a tensor of transformers' Llama.

    Raises:
        ModelError: for a tensor that its ``llama`` has not.
    """
    module, _, kind = name.rpartition(".")
    layer = _LAYER.fullmatch(module)
    place = _PLACES.get(layer[2] if layer else module)
    if place is None or kind not in ("weight", "bias"):
        raise ModelError(f"llama.cpp's llama has no tensor for {name!r}")
    return f"blk.{layer[1]}.{place}.{kind}" if layer else f"{place}.{kind}"


def in_their_order(name: str, values: Tensor, config: Any, back: bool = False) -> Tensor:
    """Rows of queries and keys as llama.cpp rotates them: pairs beside each other, which transformers has halves apart.

    Args:
        name: of the tensor in transformers.
        values: ``(R, ...)``: a weight, codes, scales of rows, or a bias. Tensors of other layers are given back.
        config: of the model.
        back: the other way.
    """
    found = _ROTATED.search(name)
    if found is None or values.shape[0] == 1:  # one number for all rows has no order
        return values
    heads = config.num_attention_heads if found[1] == "q" else config.num_key_value_heads
    half = values.shape[0] // heads // 2
    split = values.reshape(heads, *((half, 2) if back else (2, half)), *values.shape[1:])
    return split.transpose(1, 2).reshape(values.shape)


def stated(told: Mapping[str, int | float]) -> list[tuple[str, int | float]]:
    """Keys in full, each with its value."""
    return [(f"{ARCHITECTURE}.{name}", value) for name, value in told.items()]
