"""ICQuant on causal language models: nats per token against stored bits, with and without adapters.

    python bench/language.py --shared DIR [--model stories260k|shakespeare|rows] [--seeds 3] [--out results.json]

`stories260k` has rows of 64 to 172 weights, so its levels are per layer. `shakespeare` is a Llama of 3.3 million
weights that this script trains on the bytes of tinyshakespeare.txt (kept in --folder); its rows of 256 and 688 have
levels of their own. `rows` codes heavy-tailed rows, no network. Finished runs are kept and not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import StudentT

import corank
from corank.codecs import Codec, ICQuant, Uniform
from corank.data import TokenSet
from corank.models import resolve
from corank.presets import PRESETS, Preset

STEPS, BATCH, LENGTH = 700, 16, 128


def recipe(codec: Codec, rounder: str) -> Preset:
    """``fast`` with that codec; for "nearest", every layer by itself and no bias correction."""
    fast = PRESETS["fast"]
    layer = replace(fast.layer, codec=codec)
    if rounder == "nearest":
        layer = replace(layer, rounder=corank.rounding.Nearest(), sequential=False, bias_correction=False)
    return replace(fast, layer=layer, edge=layer)


def codecs(bits: int, per: str) -> dict[str, Codec]:
    """What is compared at one width."""
    return {
        "uniform": Uniform(bits, range="mse", half=True),
        "icquant": ICQuant(bits, levels="uniform", per=per),
        "icquant k-means": ICQuant(bits, levels="kmeans", per=per),
    }


def measure(model: nn.Module, data: TokenSet, scored: TokenSet, preset: Preset, bits: int, budget: float, seed: int):
    """One run's record."""
    started = time.process_time()
    small = corank.quantize(
        model, data, bits=bits, budget=budget, preset=preset, search="greedy", samples=64, seed=seed, all_layers=True
    )
    seconds = time.process_time() - started
    found, run = corank.evaluate(small, scored, model), corank.inspect(small)
    return {
        "nats": round(found.nats or 0.0, 4),
        "kl": round(found.kl or 0.0, 4),
        "equivalent_bits": round(run["equivalent_bits"], 3),
        "cpu_seconds": round(seconds, 1),
    }


def heavy_rows(out: dict[str, Any], columns: int = 4096) -> None:
    """Mean squared error on rows of Student's t with 3 degrees of freedom, at equal bits."""
    torch.manual_seed(0)
    weight = StudentT(3.0).sample((64, columns))
    for bits in (2, 3, 4):
        small = ICQuant(bits, levels="uniform")
        kmeans = ICQuant(bits, levels="kmeans")
        for name, codec in {"icquant": small, "icquant k-means": kmeans, **groups(bits)}.items():
            codebook = codec.fit(weight)
            error = (codebook.values(codebook.nearest(weight)) - weight).square().mean() / weight.square().mean()
            stored = bits + codebook.size_bits / weight.numel()
            out[f"rows {bits} {name}"] = {"bits": round(stored, 3), "error": round(float(error), 5)}
            print(f"rows {bits} {name:<18} {stored:.3f} bits, relative squared error {float(error):.5f}", flush=True)


def groups(bits: int) -> dict[str, Codec]:
    """Uniform codes with scales for groups of weights, the groups smaller and smaller."""
    return {
        f"uniform, groups of {group}, {clip}": Uniform(bits, group=group, range=clip, half=True)
        for group in (128, 64, 32)
        for clip in ("minmax", "mse")
    }


def shakespeare(shared: Path, folder: Path) -> tuple[nn.Module, TokenSet, TokenSet]:
    """The Llama trained on bytes, its calibration and its test sequences (the last tenth of the text)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    text = torch.from_numpy(np.fromfile(shared / "data" / "tinyshakespeare.txt", dtype=np.uint8).astype(np.int64))
    cut = len(text) * 9 // 10
    train, test = (part[: len(part) // LENGTH * LENGTH].reshape(-1, LENGTH) for part in (text[:cut], text[cut:]))
    if not folder.exists():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=256, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=8,
            num_key_value_heads=8, max_position_embeddings=256, tie_word_embeddings=False,
        )  # fmt: skip
        model = LlamaForCausalLM(config).train()
        fit(model, train)
        model.eval().save_pretrained(folder)
    return resolve(f"hf:{folder}").model, TokenSet(train), TokenSet(test[:256])


def fit(model: nn.Module, sequences: Tensor) -> None:
    """AdamW with a one-cycle rate."""
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS, pct_start=0.1)
    started = time.perf_counter()
    for step in range(STEPS):
        chosen = sequences[torch.randint(len(sequences), (BATCH,))]
        loss = model(input_ids=chosen, labels=chosen).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step} of {STEPS}, {float(loss):.3f} nats, {time.perf_counter() - started:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--model", choices=("stories260k", "shakespeare", "rows"), default="stories260k")
    parser.add_argument("--folder", type=Path, default=Path("build/shakespeare"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/language.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.model == "rows":
        heavy_rows(results)
        options.out.write_text(json.dumps(results, indent=1) + "\n")
        return
    if options.model == "shakespeare":
        model, data, scored = shakespeare(options.shared, options.folder)
    else:
        model = resolve(f"hf:{options.shared / 'models' / 'stories260k'}").model
        tokens = np.load(options.shared / "data" / "stories260k_tokens.npz")
        data, scored = (TokenSet(torch.from_numpy(tokens[name]).long()) for name in ("calibration", "test"))
    float_nats = corank.evaluate(model, scored).nats
    print(f"{options.model}: float {float_nats:.4f} nats per token", flush=True)
    per = "row" if options.model == "shakespeare" else "layer"
    for bits in (2, 3, 4):
        for name, codec in codecs(bits, per).items():
            for rounder in ("nearest", "gptq"):
                for budget in (0.0, 0.25):
                    for seed in range(options.seeds if rounder == "gptq" else 1):
                        key = f"{options.model} {bits}+{budget:g} {name}, {rounder}/{seed}"
                        if key not in results:
                            preset = recipe(codec, rounder)
                            results[key] = measure(model, data, scored, preset, bits, budget, seed)
                            options.out.write_text(json.dumps(results, indent=1) + "\n")
                        one = results[key]
                        print(
                            f"{key:<52} {one['nats']:.4f} nats, {one['equivalent_bits']:.3f} bits, "
                            f"{one['cpu_seconds']:.0f} CPU s",
                            flush=True,
                        )


if __name__ == "__main__":
    main()
