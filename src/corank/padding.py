"""Positions of token sequences that are padding, by a batch's attention masks: what is there counts nowhere.

Shapes: ``N`` sequences, ``T`` positions of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

__all__ = ["masks_of", "output_mask", "real_outputs", "real_positions", "real_rows"]

_MASK, _DECODER = "attention_mask", "decoder_"


def masks_of(batch: Any) -> tuple[Tensor, ...]:
    """The masks ``(N, T)`` bool of a batch of model inputs, true where a position is real, of its keys that end in
    "attention_mask"; those that mask nothing are left out."""
    if not isinstance(batch, Mapping):
        return ()
    masks = (_padded(value) for key, value in batch.items() if str(key).endswith(_MASK))
    return tuple(mask for mask in masks if mask is not None)


def output_mask(batch: Any) -> Tensor | None:
    """The mask ``(N, T)`` of the positions that the model's outputs stand for: the decoder's, where there is one; None
    where all are real."""
    if not isinstance(batch, Mapping):
        return None
    decodes = any(str(key).startswith(_DECODER) for key in batch)
    return _padded(batch.get(f"{_DECODER}{_MASK}" if decodes else _MASK))


def real_positions(masks: Sequence[Tensor], shape: Sequence[int]) -> Tensor | None:
    """Which vectors of a tensor ``(N, T, width)``, or ``(N * T, width)``, are real.

    Of several masks of that shape (an encoder's and a decoder's of the same length, whose layers nothing tells apart)
    all must say so.

    Args:
        masks: of :func:`masks_of`.
        shape: of the tensor.

    Returns:
        Bool ``(N, T)`` or ``(N * T,)``; None where no mask fits the shape.
    """
    leading = tuple(shape[:-1])
    fitting = [mask for mask in masks if leading in (tuple(mask.shape), (mask.numel(),))]
    return torch.stack(fitting).all(0).reshape(leading) if fitting else None


def real_rows(masks: Sequence[Tensor], vectors: Tensor) -> Tensor:
    """The real ones ``(M, width)`` of vectors ``(N, T, width)`` or ``(N * T, width)``; all, as they are, where no mask
    fits them."""
    real = real_positions(masks, vectors.shape)
    return vectors if real is None else vectors[real.to(vectors.device)]


def real_outputs(mask: Tensor, output: Any) -> Any:
    """A model's output with the real positions alone: of each tensor ``(N, T, width, ...)`` in it these, as ``(1, M,
    width, ...)``. Tensors ``(N, T)`` stay: where there are T classes, nothing tells logits of samples from scores of
    positions."""

    def real(leaf: Any) -> Any:
        fits = isinstance(leaf, Tensor) and leaf.dim() > 2 and leaf.shape[:2] == mask.shape
        return leaf[mask.to(leaf.device)][None] if fits else leaf

    return tree_map(real, output)


def _padded(value: Any) -> Tensor | None:
    """A mask that says of every position whether it is real; None for other things, and where all are."""
    if not isinstance(value, Tensor) or value.dim() != 2:
        return None
    if value.is_floating_point() and not bool(((value == 0) | (value == 1)).all()):
        return None  # added to the scores, in a form of the model's own
    real = value != 0
    return None if bool(real.all()) else real
