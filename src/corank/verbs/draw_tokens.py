"""Text of a language model's own, to calibrate and train with: the idea of LLM-QAT (arXiv 2305.17888)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from corank.calibration import run
from corank.calibration.seeds import generator_of
from corank.config import check_progress
from corank.data import TokenSet
from corank.devices import device_of
from corank.errors import ConfigError, DataError, ModelError
from corank.losses import sequence_logits
from corank.precision import exact_float32
from corank.progress import Progress
from corank.watching import evaluating

__all__ = ["draw_tokens"]

_AT_ONCE = 256  # sequences


@exact_float32()
def draw_tokens(
    model: nn.Module,
    sequences: int = 2048,
    length: int = 256,
    *,
    first: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> TokenSet:
    """Token sequences drawn from what a language model itself expects, each token from the softmax of all logits.

    They stand for text of the kind that the model was trained on: as ``data`` of :func:`corank.quantize` and
    :func:`corank.train`, alone, or beside the little text that there is. How tokens are drawn is ours.

    Args:
        model: gives logits ``(N, T, vocabulary)`` of token ids ``(N, T)``, alone or under "logits". What attention saw
            of earlier tokens is kept where the model can; otherwise each token reads all before it anew.
        sequences: how many, at least one.
        length: tokens of each, with the first, at least two.
        first: the token that each begins with; None: ``model.config.bos_token_id``.
        seed: of the draws.
        progress: called with (what, done, total), in tokens.

    Raises:
        DataError: where no first token is given or known, or one is none of the vocabulary.
        ModelError: for outputs that are no logits of tokens. ConfigError: for numbers below those above.
    """
    check_progress(progress)
    for name, value, least in (("sequences", sequences, 1), ("length", length, 2)):
        if type(value) is not int or value < least:
            raise ConfigError(f"{name}={value!r}: a whole number from {least}, e.g. draw_tokens(model, 2048, 256)")
    begin = getattr(getattr(model, "config", None), "bos_token_id", None) if first is None else first
    if type(begin) is not int:
        raise DataError(f"a {type(model).__name__} does not say what a sequence begins with: draw_tokens(..., first=1)")
    generator, parts = generator_of(seed, "draw_tokens"), list[Tensor]()
    with torch.no_grad(), evaluating(model):
        for start in range(0, sequences, _AT_ONCE):
            ids = torch.full((min(_AT_ONCE, sequences - start), 1), begin)
            kept: Any = None
            while ids.shape[1] < length:
                logits, kept = _following(model, ids, kept)
                ids = torch.cat([ids, torch.multinomial(logits.softmax(1), 1, generator=generator)], 1)
                if progress is not None:
                    progress("drawing", start * length + ids.numel(), sequences * length)
            parts.append(ids)
    return TokenSet(torch.cat(parts))


def _following(model: nn.Module, ids: Tensor, kept: Any) -> tuple[Tensor, Any]:
    """Logits of the next token, float32 on the CPU, and what the model keeps of the tokens so far."""
    device = device_of(model)
    if getattr(getattr(model, "config", None), "use_cache", False) is True:
        latest = ids if kept is None else ids[:, -1:]
        try:
            found = model(input_ids=latest.to(device), past_key_values=kept, use_cache=True)
        except IndexError as error:
            raise DataError(f"the token {int(latest.max())} is none of the model's: {error}") from error
        kept = found.get("past_key_values")
    else:
        found = run(model, ids, device)
    logits = sequence_logits(found)
    if logits is None:
        raise ModelError(
            f"the outputs of a {type(model).__name__} are no logits (N, T, vocabulary) of token ids: text is drawn "
            "from a language model"
        )
    return logits[:, -1].float().cpu(), kept
