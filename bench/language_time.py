"""Time and memory of coding a language model at a rate, beside those of a plain GPTQ in the same process.

Run by ``bench/language.py --model time``: a Llama with random weights, since time asks for a size alone. Process time
on one thread, the two in turn, so that what else a machine does disturbs both alike.
"""

from __future__ import annotations

import copy
import time

import torch
from plain_gptq import first_inputs, plain_gptq
from torch import nn

import corank
from corank.data import TokenSet
from corank.evaluation import peak_memory_bytes

__all__ = ["coding_time"]

_SEQUENCES, _LENGTH, _TOGETHER = 64, 128, 16


def coding_time(rate: float, turns: int) -> dict[str, float]:
    """Seconds a million coded weights of both, the ratio of their medians, and the process's peak memory."""
    torch.manual_seed(0)
    model, tokens = _llama(), torch.randint(256, (_SEQUENCES, _LENGTH))
    millions = sum(one.weight.numel() for one in model.modules() if isinstance(one, nn.Linear)) / 1e6
    ours, plain = list[float](), list[float]()
    for turn in range(turns):
        started = time.process_time()
        _plain(model, tokens)
        plain.append(time.process_time() - started)
        started = time.process_time()
        corank.quantize(model, TokenSet(tokens), rate=rate, samples=_SEQUENCES, all_layers=True)
        ours.append(time.process_time() - started)
        print(f"turn {turn + 1}: rate={rate:g} {ours[-1]:.1f} CPU s, plain GPTQ {plain[-1]:.1f} CPU s", flush=True)
    best, least = sorted(ours)[turns // 2], sorted(plain)[turns // 2]
    return {
        "million_weights": round(millions, 2),
        "seconds_a_million": round(best / millions, 2),
        "plain_seconds_a_million": round(least / millions, 2),
        "ratio": round(best / least, 2),
        "peak_memory_mb": round(peak_memory_bytes() / 1e6),
    }


def _plain(model: nn.Module, tokens: torch.Tensor) -> None:
    own = copy.deepcopy(model)
    blocks = own.get_submodule("model.layers")
    assert isinstance(blocks, nn.ModuleList)
    plain_gptq(blocks, first_inputs(own, blocks, list(tokens.split(_TOGETHER))), bits=2)


def _llama() -> nn.Module:
    """19 million weights in linear layers, and a tied embedding."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=256, hidden_size=512, intermediate_size=1376, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=8, max_position_embeddings=256, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()
