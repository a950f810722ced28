"""GPTQ as published (arXiv 2210.17323), plain: what the time of coding a language model is measured against.

Block after block, each on the inputs that the rounded blocks before it give: for every layer one Gram matrix of all
calibration tokens, one Cholesky factor of its damped inverse, and one walk over the columns, updated lazily in blocks
of 128. A scale for each row. No search, no sweeps, no correction, and nothing is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["first_inputs", "plain_gptq"]

_BLOCK, _DAMPING = 128, 0.01


@torch.no_grad()
def plain_gptq(blocks: nn.ModuleList, embedded: list[tuple[Tensor, dict[str, Any]]], bits: int) -> None:
    """Rounds every linear layer of the blocks in place.

    Args:
        blocks: of a decoder, each called with hidden states and named arguments, and giving hidden states.
        embedded: what the first block is called with, for each batch.
        bits: of a code.
    """
    states = [hidden for hidden, _ in embedded]
    for block in blocks:
        layers = [module for module in block.modules() if isinstance(module, nn.Linear)]
        grams = {layer: torch.zeros(layer.in_features, layer.in_features) for layer in layers}
        with _summed(grams):
            for hidden, (_, named) in zip(states, embedded, strict=True):
                block(hidden, **named)
        for layer, gram in grams.items():
            layer.weight.copy_(_rounded(layer.weight, gram, bits))
        states = [_hidden(block(hidden, **named)) for hidden, (_, named) in zip(states, embedded, strict=True)]


def first_inputs(model: nn.Module, blocks: nn.ModuleList, batches: list[Tensor]) -> list[tuple[Tensor, dict[str, Any]]]:
    """What the first block is called with on each batch of token ids."""
    found: list[tuple[Tensor, dict[str, Any]]] = []

    def keep(_module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Any]) -> None:
        found.append((args[0], named))
        raise _Caught

    handle = blocks[0].register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad():
        for batch in batches:
            try:
                model(input_ids=batch, use_cache=False)
            except _Caught:
                continue
    handle.remove()
    return found


class _Caught(Exception):
    """The inputs are known, and the rest of the network need not run."""


@contextmanager
def _summed(grams: dict[nn.Linear, Tensor]) -> Iterator[None]:
    """Within, every call of a layer adds its inputs' outer products to its Gram matrix."""

    def add(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.Linear)
        rows = args[0].reshape(-1, layer.in_features)
        grams[layer].addmm_(rows.T, rows)

    handles = [layer.register_forward_pre_hook(add) for layer in grams]
    yield
    for handle in handles:
        handle.remove()


def _hidden(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _rounded(weight: Tensor, gram: Tensor, bits: int) -> Tensor:
    """The weight ``(R, C)`` with values on one grid a row, for inputs of that Gram matrix."""
    rest, result, top = weight.clone(), torch.empty_like(weight), 2**bits - 1
    low, high = weight.amin(1, keepdim=True).clamp(max=0), weight.amax(1, keepdim=True).clamp(min=0)
    scale = ((high - low) / top).clamp(min=1e-8)
    zero = (-low / scale).round()
    dead = gram.diagonal() == 0
    gram.diagonal()[dead] = 1.0
    gram.diagonal().add_(_DAMPING * gram.diagonal().mean())
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(gram)), upper=True)
    for start in range(0, weight.shape[1], _BLOCK):
        end = min(start + _BLOCK, weight.shape[1])
        part, spread = rest[:, start:end].clone(), inverse[start:end, start:end]
        errors = torch.zeros_like(part)
        for column in range(end - start):
            target = part[:, column : column + 1]
            value = scale * ((target / scale + zero).round().clamp(0, top) - zero)
            result[:, start + column] = value[:, 0]
            error = (target - value) / spread[column, column]
            part[:, column:] -= error @ spread[column : column + 1, column:]
            errors[:, column] = error[:, 0]
        rest[:, end:] -= errors @ inverse[start:end, end:]
    return result
