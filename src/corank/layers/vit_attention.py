"""The attention of vision transformers, as timm and transformers write it, taken apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from torch import Tensor, nn

from corank.errors import ModelError

__all__ = ["AttentionParts", "is_attention", "parts_of"]


@dataclass(frozen=True)
class AttentionParts:
    """``softmax(scale q k^T) v`` and what follows it.

    Attributes:
        query, key, value: weight ``(heads * size, C)`` and bias ``(heads * size,)`` or None.
        heads: how many.
        scale: of the scores.
        dropout: of the probabilities while it trains.
        after: modules that what was attended to goes through, by the names they have.
        value_name: of the layer of values.
        in_pair: whether it gives its output with the probabilities.
    """

    query: tuple[Tensor, Tensor | None]
    key: tuple[Tensor, Tensor | None]
    value: tuple[Tensor, Tensor | None]
    heads: int
    scale: float
    dropout: float
    after: Mapping[str, nn.Module] = field(default_factory=dict)
    value_name: str = "value"
    in_pair: bool = False


def is_attention(module: nn.Module) -> bool:
    """Whether :func:`parts_of` knows the kind of module."""
    return _reader(module) is not None


def parts_of(module: nn.Module) -> AttentionParts:
    """The parts of timm's ``Attention``, transformers' ``ViTAttention`` or, before its version 5, ``ViTSelfAttention``
    (also of its DeiT).

    Raises:
        ModelError: for another module, or one that does more to queries and keys than multiply them.
    """
    read = _reader(module)
    if read is None:
        raise ModelError(
            f"a {type(module).__name__} is no attention of a kind that is known: timm's Attention, and transformers' "
            "ViTAttention (before version 5, ViTSelfAttention)"
        )
    return read(module)


def _timm(module: nn.Module) -> AttentionParts:
    inner, own = module._modules, cast(dict[str, Any], module.__dict__)
    for name in ("q_norm", "k_norm"):
        if not isinstance(inner.get(name), nn.Identity | None):
            raise ModelError(
                f"this attention normalizes queries and keys ({name}), so that their product is no product of weights"
            )
    if inner.get("gate") is not None:
        raise ModelError("this attention has a gate that reads its inputs, too, which is not known here")
    query, key, value = _split(_linear(inner["qkv"]))
    after = {name: one for name in ("norm", "proj", "proj_drop") if (one := inner.get(name)) is not None}
    dropout = cast(nn.Dropout, inner["attn_drop"]).p
    return AttentionParts(query, key, value, own["num_heads"], own["scale"], dropout, after)


def _transformers(module: nn.Module) -> AttentionParts:
    inner, own = module._modules, cast(dict[str, Any], module.__dict__)
    names = ("q_proj", "k_proj", "v_proj") if "q_proj" in inner else ("query", "key", "value")
    query, key, value = (_linear(inner[name]) for name in names)
    after = {"o_proj": inner["o_proj"]} if "o_proj" in inner else {}
    heads = own["num_attention_heads"]
    dropout = own["dropout_prob"] if "dropout_prob" in own else own.get("attention_dropout", 0.0)
    if "dropout" in inner:  # of the older ones
        dropout = cast(nn.Dropout, inner["dropout"]).p
    scale = (query[0].shape[0] // heads) ** -0.5
    kept = {name: one for name, one in after.items() if one is not None}
    return AttentionParts(query, key, value, heads, scale, float(dropout), kept, names[2], True)


_TIMM = ("timm.layers.attention", "timm.models.vision_transformer")
_TRANSFORMERS = ("transformers.models.vit.modeling_vit", "transformers.models.deit.modeling_deit")
_KINDS: Mapping[tuple[str, str], Callable[[nn.Module], AttentionParts]] = {
    **{(place, "Attention"): _timm for place in _TIMM},
    **{
        (place, f"{model}{kind}"): _transformers
        for place, model in zip(_TRANSFORMERS, ("ViT", "DeiT"), strict=True)
        for kind in ("Attention", "SelfAttention", "SdpaSelfAttention")
    },
}


def _reader(module: nn.Module) -> Callable[[nn.Module], AttentionParts] | None:
    found = _KINDS.get((type(module).__module__, type(module).__name__))
    if found is _transformers and not {"q_proj", "query"} & set(module._modules):
        return None  # before version 5, ViTAttention is what holds the attention
    return found


def _linear(layer: nn.Module | None) -> tuple[Tensor, Tensor | None]:
    if type(layer) is not nn.Linear:
        raise ModelError(f"this attention projects by a {type(layer).__name__}, where a Linear is needed")
    return layer.weight, layer.bias


def _split(packed: tuple[Tensor, Tensor | None]) -> list[tuple[Tensor, Tensor | None]]:
    weight, bias = packed
    biases = [None] * 3 if bias is None else list(bias.chunk(3))
    return list(zip(weight.chunk(3), biases, strict=True))
