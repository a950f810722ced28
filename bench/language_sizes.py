"""What language models weigh with every weight coded: bits a parameter, everything counted, and nats.

    python bench/language_sizes.py --shared DIR [--only shakespeare7m] [--rate 2] [--preset fast] [--table 1.5]

Two trained Llamas, one of 50 million random weights, and small configurations of GPT-2 and Mixtral with random weights,
which are saved, loaded and asked for text. ``--table`` gives the table, and the head that is tied to it, more bits.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import corank
from corank.codecs import RateUniform
from corank.data import TokenSet
from corank.models import resolve

Task = tuple[Callable[[], nn.Module], TokenSet, TokenSet | None]


def shakespeare7m(shared: Path) -> Task:
    folder = shared / "models" / "shakespeare7m"
    letters = {one: place for place, one in enumerate(json.loads((folder / "characters.json").read_text())["chars"])}
    text = torch.tensor([letters[one] for one in (shared / "data" / "tinyshakespeare.txt").read_text()])
    cut = int(0.9 * len(text))
    train, test = (part[: len(part) // 256 * 256].reshape(-1, 256) for part in (text[:cut], text[cut:]))
    return lambda: resolve(f"hf:{folder}").model, TokenSet(train), TokenSet(test)


def stories260k(shared: Path) -> Task:
    tokens = np.load(shared / "data" / "stories260k_tokens.npz")
    data, test = (TokenSet(torch.from_numpy(tokens[name]).long()) for name in ("calibration", "test"))
    return lambda: resolve(f"hf:{shared / 'models' / 'stories260k'}").model, data, test


def llama50m(shared: Path) -> Task:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=16_000, hidden_size=512, intermediate_size=1376, num_hidden_layers=14, num_attention_heads=8,
        num_key_value_heads=8, tie_word_embeddings=True,
    )  # fmt: skip
    return _seeded(lambda: LlamaForCausalLM(config)), _random(16_000), None


def gpt2(shared: Path) -> Task:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=1000, n_positions=128, n_embd=128, n_layer=3, n_head=4)
    return _seeded(lambda: GPT2LMHeadModel(config)), _random(1000), None


def mixtral(shared: Path) -> Task:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=1000, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, max_position_embeddings=128,
    )  # fmt: skip
    return _seeded(lambda: MixtralForCausalLM(config)), _random(1000), None


def _seeded(made: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    def again() -> nn.Module:
        torch.manual_seed(0)
        return made().eval()

    return again


def _random(pieces: int) -> TokenSet:
    return TokenSet(torch.randint(pieces, (64, 64), generator=torch.Generator().manual_seed(0)))


NETWORKS: dict[str, Callable[[Path], Task]] = {
    one.__name__: one for one in (shakespeare7m, stories260k, gpt2, mixtral, llama50m)
}


def measured(task: Task, folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """One network's record: bytes and bits a parameter of its file, nats, and that the loaded one tells the same."""
    made, data, test = task
    model = made()
    numbers = sum(one.numel() for one in {id(one): one for one in model.parameters()}.values())
    started = time.process_time()
    small = corank.quantize(model, data, **asked)
    seconds = time.process_time() - started
    size = corank.save(small, folder / "small.safetensors")
    back, start = corank.load(folder / "small.safetensors", made()), data.ids[:1, :8]
    same = torch.equal(_told(small, start), _told(back, start))
    float_size = sum(one["bytes"] for one in corank.inspect(small)["float_tensors"])
    found = {"million_numbers": round(numbers / 1e6, 3), "bytes": size, "bits_a_number": round(8 * size / numbers, 3)}
    found |= {"float_share": round(float_size / 4 / numbers, 4), "tells_the_same": same, "cpu_s": round(seconds, 1)}
    if test is not None:
        score = corank.evaluate(back, test, model)
        found |= {"nats": round(score.nats or 0.0, 4), "kl": round(score.kl or 0.0, 4)}
    return found


def _told(model: Any, start: Tensor) -> Tensor:
    return model.generate(start, attention_mask=torch.ones_like(start), max_new_tokens=12, do_sample=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--only", choices=tuple(NETWORKS), action="append")
    parser.add_argument("--rate", type=float, action="append")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--table", type=float, action="append", help="bits more than the rate")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.only or NETWORKS:
        task = NETWORKS[name](options.shared)
        for rate, more in product(options.rate or [2.0], options.table or [0.0]):
            with tempfile.TemporaryDirectory() as folder:
                asked = {"rate": rate, "preset": options.preset}
                exceptions = {"layers": {"lm_head": RateUniform.of(rate + more)}} if more else {}
                found = measured(task, Path(folder), {**asked, **exceptions})
                print(name, {**asked, "table": more}, json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
