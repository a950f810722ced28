"""How fast a causal language model reads and writes, and what its weights take in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from corank.devices import device_of
from corank.errors import ModelError
from corank.layers import CodedLayer
from corank.watching import evaluating

__all__ = ["Speed", "held_bytes", "speed_of"]

_TURNS = 3  # of reading the prompt, the fastest of which counts


@dataclass(frozen=True)
class Speed:
    """Of one model, on the threads that torch has.

    Attributes:
        prefill: tokens a second of a prompt that is read at once, the fastest of three turns.
        decode: tokens a second written one after the other: of the median token.
        held_bytes: that parameters, buffers and composed weights take.
    """

    prefill: float
    decode: float
    held_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def speed_of(model: nn.Module, ids: Tensor, tokens: int = 16) -> Speed:
    """Reads a prompt and writes so many tokens behind it, the likeliest each.

    Args:
        model: a causal language model as transformers has them, with a cache of keys and values.
        ids: int64 ``(1, T)``, the prompt.
        tokens: to be written, at least one.

    Raises:
        ModelError: for a model that takes no cache.
    """
    prefill, steps, found = math.inf, list[float](), dict[str, Any]()
    ids = ids.to(device_of(model))
    with torch.inference_mode(), evaluating(model):
        for _ in range(_TURNS):
            started = time.perf_counter()
            found = _read(model, {"input_ids": ids})
            prefill = min(prefill, time.perf_counter() - started)
        for _ in range(tokens):
            started = time.perf_counter()
            latest = found["logits"][:, -1:].argmax(-1)
            found = _read(model, {"input_ids": latest, "past_key_values": found["past_key_values"]})
            steps.append(time.perf_counter() - started)
    return Speed(ids.shape[1] / prefill, 1 / sorted(steps)[len(steps) // 2], held_bytes(model))


def held_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters, buffers and composed weights, shared ones once."""
    tensors: list[Tensor] = [*model.parameters(), *model.buffers()]
    tensors += [one._cache for one in model.modules() if isinstance(one, CodedLayer) and one._cache is not None]
    return sum({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}.values())


def _read(model: nn.Module, given: Mapping[str, Any]) -> Any:  # a mapping of the model's own kind
    try:
        found = model(**given, use_cache=True)
        if found["past_key_values"] is None:
            raise KeyError("past_key_values")
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise ModelError(
            f"the speed of a {type(model).__name__} is not known: causal language models of transformers read tokens "
            f"and keep past_key_values ({error})"
        ) from error
    return found
