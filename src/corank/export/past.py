"""Causal language models that take the keys and values of earlier tokens and give those of all, so that a token costs
the same however many stood before it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from corank.errors import ConfigError, ModelError
from corank.export.example import INPUT, Axes, named_inputs

__all__ = ["Exported", "WithPast", "exported"]

_LEAST = 4  # tokens: two that stood before and two that are new


@dataclass(frozen=True)
class Exported:
    """What a graph is made of: a network, inputs to try it with, and the axes of theirs that are left open."""

    model: nn.Module
    example: Any
    dynamic: Axes


class WithPast(nn.Module):
    """A language model of transformers with tensors for its cache.

    Inputs and outputs are named as optimum and onnxruntime-genai look for them: ``past_key_values.0.key`` ``(N, heads,
    P, width)`` and so on, ``input_ids`` and ``position_ids`` ``(N, T)``, ``attention_mask`` ``(N, P + T)``; ``logits``
    ``(N, T, vocabulary)``, ``present.0.key`` ``(N, heads, P + T, width)``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **given: Tensor) -> dict[str, Tensor]:
        """The logits of the new tokens, and the keys and values of all."""
        from transformers import DynamicCache

        past = [value for name, value in given.items() if name.startswith("past_key_values.")]
        inputs = {name: value for name, value in given.items() if not name.startswith("past_key_values.")}
        cache = DynamicCache(list(zip(past[::2], past[1::2], strict=True)))
        found = self.model(**inputs, past_key_values=cache, use_cache=True)
        return {"logits": found.logits, **_named("present", found.past_key_values)}


def exported(model: nn.Module, example: Any, dynamic: Axes, past: bool) -> Exported:
    """What is exported; with ``past`` the model with its cache, tried on the second half of the example's tokens.

    Args:
        model: quantized.
        example: with ``past`` token ids ``(N, T)``, or a mapping that has ``input_ids``.
        dynamic: axes that are left open; with ``past`` batch and lengths are.
        past: whether keys and values are inputs and outputs.

    Raises:
        ConfigError: for an example that is no token ids, or fewer than 4 of them.
        ModelError: for a model that keeps no keys and values.
    """
    if not past:
        return Exported(model, example, dynamic)
    ids = _token_ids(example)
    rows, length = ids.shape
    before = length // 2
    takes = inspect.signature(model.forward).parameters
    with torch.no_grad():
        cache = _cache_of(model, ids[:, :before]) if "past_key_values" in takes else None
        if cache is None:
            raise ModelError(
                f"{type(model).__name__} keeps no keys and values of earlier tokens for each layer, as causal language "
                "models of transformers do; export it with past=False"
            )
        inputs = {"input_ids": ids[:, before:].contiguous(), "attention_mask": torch.ones_like(ids)}
        if "position_ids" in takes:
            inputs["position_ids"] = torch.arange(before, length, dtype=torch.int64).repeat(rows, 1)
        inputs |= {name: value.clone() for name, value in _named("past_key_values", cache).items()}
    axes = {name: (0, 2) if value.dim() == 4 else (0, 1) for name, value in inputs.items()}
    return Exported(WithPast(model).eval(), inputs, axes)


def _token_ids(example: Any) -> Tensor:
    inputs = named_inputs(example)
    ids = inputs.get("input_ids", inputs.get(INPUT))
    if ids is None or ids.is_floating_point() or ids.dim() != 2 or ids.shape[1] < _LEAST:
        raise ConfigError(
            f"with past=True the example is token ids (N, T), {_LEAST} or more of them: half stand for earlier tokens; "
            "on the command line --input 1x32"
        )
    return ids.long()


def _cache_of(model: nn.Module, ids: Tensor) -> Any:
    """The keys and values that the model gives, None where that is not what it keeps."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    found = model(input_ids=ids, use_cache=True)
    cache = found.get("past_key_values") if isinstance(found, Mapping) else None
    if not isinstance(cache, DynamicCache):
        return None
    held = [layer.keys for layer in cache.layers if isinstance(layer, DynamicLayer)]
    whole = [one for one in held if one is not None and one.shape[2] == ids.shape[1]]
    return cache if len(whole) == len(cache.layers) else None


def _named(first: str, cache: Any) -> dict[str, Tensor]:
    return {
        f"{first}.{place}.{name}": value
        for place, layer in enumerate(cache.layers)
        for name, value in (("key", layer.keys), ("value", layer.values))
    }
