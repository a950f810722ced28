"""A language model four times as large as the memory that it is coded in, read one decoder layer at a time.

    python bench/streaming.py [--layers 24] [--width 1280] [--rate 2] [--bits B] [--preset fast] [--samples 16] [--kill]
    python bench/streaming.py --shared DIR --quality [--rate 2]

Random bfloat16 weights in shards (written first, in a process of its own). Memory is the peak resident size of the
process that codes; beside it what the process has before it begins. ``--kill`` also kills a run half way, resumes it
and compares the files. ``--quality``: two trained networks, streamed and whole, in nats and bytes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import corank
from corank.data import TokenSet
from corank.evaluation import peak_memory_bytes

sys.path.insert(0, str(Path(__file__).parent))
VOCABULARY, LENGTH = 8192, 256


def written(folder: Path, layers: int, width: int) -> None:
    """A Llama of random weights in shards of 200 MB, made and written layer by layer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=width * 11 // 4 // 64 * 64,
        num_hidden_layers=layers, num_attention_heads=width // 64, num_key_value_heads=width // 128,
        max_position_embeddings=LENGTH, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder, max_shard_size="200MB")


def tokens(samples: int) -> TokenSet:
    return TokenSet(torch.randint(VOCABULARY, (samples, LENGTH), generator=torch.Generator().manual_seed(1)))


def coded(options: argparse.Namespace) -> dict[str, Any]:
    """Codes the folder in this process."""
    torch.set_num_threads(options.threads)
    started, begun = time.process_time(), time.perf_counter()
    before = peak_memory_bytes()
    given: dict[str, Any] = {"bits": options.bits} if options.bits else {"rate": options.rate}

    def told(what: str, done: int, total: int) -> None:
        if options.stop_at and what == "coding" and done >= options.stop_at * total:
            sys.exit(9)

    small = corank.quantize_streamed(
        options.folder, tokens(options.samples), preset=options.preset, checkpoint=options.kept, progress=told, **given
    )
    coding = peak_memory_bytes()
    size = corank.save(small, options.out)
    weights = small.corank_run.weights
    seconds = time.process_time() - started
    return {
        "million_weights": round(weights / 1e6, 1),
        "float32_mb": round(4 * weights / 1e6),
        "bfloat16_mb": round(2 * weights / 1e6),
        "before_mb": round(before / 1e6),
        "peak_coding_mb": round(coding / 1e6),
        "peak_mb": round(peak_memory_bytes() / 1e6),
        "file_mb": round(size / 1e6, 1),
        "cpu_seconds": round(seconds),
        "seconds": round(time.perf_counter() - begun),
        "cpu_seconds_a_million": round(seconds / weights * 1e6, 2),
    }


def quality(shared: Path, rate: float) -> dict[str, Any]:
    """Streamed and whole side by side."""
    from language_sizes import shakespeare7m, stories260k

    found: dict[str, Any] = {}
    for name, task in (("stories260k", stories260k), ("shakespeare7m", shakespeare7m)):
        made, data, test = task(shared)
        model = made()
        ways = {
            "whole": lambda model=model, data=data: corank.quantize(model, data, rate=rate),
            "streamed": lambda name=name, data=data: corank.quantize_streamed(
                shared / "models" / name, data, rate=rate
            ),
        }
        for way, made_small in ways.items():
            started = time.process_time()
            small = made_small()
            seconds = time.process_time() - started
            with tempfile.TemporaryDirectory() as folder:
                size = corank.save(small, Path(folder) / "model.safetensors")
            score = corank.evaluate(small, test, model)
            found[f"{name}, {way}"] = {
                "nats": round(score.nats or 0.0, 4), "kl": round(score.kl, 5), "bytes": size,
                "cpu_seconds": round(seconds, 1),
            }  # fmt: skip
            print(name, way, found[f"{name}, {way}"], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--rate", type=float, default=2.0)
    parser.add_argument("--bits", type=int)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--kept", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--stop-at", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quality:
        found = quality(options.shared, options.rate)
    elif options.folder is not None:
        print(json.dumps(coded(options)))
        return
    else:
        found = measured(options)
    print(json.dumps(found, indent=1))
    if options.out is not None:
        known = json.loads(options.out.read_text()) if options.out.exists() else {}
        key = "quality" if options.quality else f"{options.layers} layers of {options.width}, {_asked(options)}"
        options.out.write_text(json.dumps({**known, key: found}, indent=1) + "\n")


def _asked(options: argparse.Namespace) -> str:
    return f"bits {options.bits}, {options.preset}" if options.bits else f"rate {options.rate:g}, {options.preset}"


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """One run in a fresh process, and where asked for one that was killed and resumed."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        code = (
            "from pathlib import Path; from streaming import written; "
            f"written(Path({str(folder / 'float')!r}), {options.layers}, {options.width})"
        )
        subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
        common = [sys.executable, __file__, "--folder", str(folder / "float"), "--rate", str(options.rate)]
        common += ["--preset", options.preset, "--samples", str(options.samples), "--threads", str(options.threads)]
        common += ["--bits", str(options.bits)] if options.bits else []
        text = subprocess.run([*common, "--out", str(folder / "one")], check=True, capture_output=True, text=True)
        found = json.loads(text.stdout.splitlines()[-1])
        if options.kill:
            again = [*common, "--out", str(folder / "two"), "--kept", str(folder / "kept")]
            killed = subprocess.run([*again, "--stop-at", "0.5"], check=False, capture_output=True)
            resumed = subprocess.run(again, check=True, capture_output=True, text=True)
            found["killed"] = killed.returncode == 9
            found["resumed_cpu_seconds"] = json.loads(resumed.stdout.splitlines()[-1])["cpu_seconds"]
            found["same_file"] = (folder / "one").read_bytes() == (folder / "two").read_bytes()
    return found


if __name__ == "__main__":
    main()
