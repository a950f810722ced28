"""ICQuant on causal language models: nats per token against stored bits, with and without adapters.

    python bench/language.py --shared DIR [--model stories260k|shakespeare|rows|time] [--seeds 3] [--out results.json]

`stories260k` has rows of 64 to 172 weights, so its levels are per layer. `shakespeare` is a Llama of 3.3 million
weights that this script trains on the bytes of tinyshakespeare.txt (kept in --folder); its rows of 256 and 688 have
levels of their own. `rows` codes heavy-tailed rows, no network. `time` codes a Llama of 19 million random weights at
`rate=2` beside a plain GPTQ: CPU seconds a million weights, their ratio and the peak memory. Other finished runs are
kept and not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from language_time import coding_time
from torch import Tensor, nn
from torch.distributions import StudentT

import corank
from corank.codecs import Codec, ICQuant, Uniform
from corank.data import TokenSet
from corank.models import resolve
from corank.presets import PRESETS, Preset

STEPS, BATCH, LENGTH = 700, 16, 128
RATES = (2.2, 2.45, 3.2, 3.45, 4.2, 4.45)  # files then take what 2 to 4-bit codes take, with adapters too


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


def choices(per: str) -> Iterator[tuple[int, tuple[str, Codec], str, float]]:
    """Width, codec, rounder and bits of adapters of every run of fixed width."""
    for bits in (2, 3, 4):
        yield from product((bits,), codecs(bits, per).items(), ("nearest", "gptq"), (0.0, 0.25))


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
        "bits": round(run["equivalent_bits"], 3),
        "cpu_seconds": round(seconds, 1),
    }


def at_rate(model: nn.Module, data: TokenSet, scored: TokenSet, rate: float, seed: int) -> dict[str, float]:
    """One run's record, at a rate; bits are those of the file."""
    started = time.process_time()
    small = corank.quantize(model, data, rate=rate, samples=64, seed=seed, all_layers=True)
    seconds = time.process_time() - started
    found, layers = corank.evaluate(small, scored, model), corank.inspect(small, codes=True)["layers"]
    counts = [layer["shape"][0] * layer["shape"][1] for layer in layers]
    coded = sum(layer["file_bits_per_weight"] * count for layer, count in zip(layers, counts, strict=True))
    return {
        "nats": round(found.nats or 0.0, 4),
        "kl": round(found.kl or 0.0, 4),
        "bits": round(coded / sum(counts), 3),
        "cpu_seconds": round(seconds, 1),
    }


def heavy_rows(out: dict[str, Any], columns: int = 4096) -> None:
    """Mean squared error on rows of TrainableModel's t with 3 degrees of freedom, at equal bits."""
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
    parser.add_argument("--model", choices=("stories260k", "shakespeare", "rows", "time"), default="stories260k")
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
    if options.model == "time":
        results["time"] = coding_time(rate=2.0, turns=options.seeds)
        print(json.dumps(results["time"], indent=1), flush=True)
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
    wanted: dict[str, Callable[[int], dict[str, float]]] = {}
    for rate in RATES:
        wanted[f"rate {rate}"] = lambda seed, rate=rate: at_rate(model, data, scored, rate, seed)
    for bits, (name, codec), rounder, budget in choices(per):
        preset = recipe(codec, rounder)
        wanted[f"{bits}+{budget:g} {name}, {rounder}"] = lambda seed, preset=preset, bits=bits, budget=budget: measure(
            model, data, scored, preset, bits, budget, seed
        )
    for name, run in wanted.items():
        for seed in range(1 if name.endswith("nearest") else options.seeds):
            key = f"{options.model} {name}/{seed}"
            if key not in results:
                results[key] = run(seed)
                options.out.write_text(json.dumps(results, indent=1) + "\n")
            one = results[key]
            said = f"{one['nats']:.4f} nats, {one['bits']:.3f} bits, {one['cpu_seconds']:.0f} CPU s"
            print(f"{key:<52} {said}", flush=True)


if __name__ == "__main__":
    main()
