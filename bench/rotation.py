"""What rotations, groups, ranges by the output and outlier codes are worth to a language model: bytes and nats.

    python bench/rotation.py --shared DIR [--only stories260k] [--bits 3] [--rotate fold] [--codec g64] [--preset fast]

Every combination of the options is coded without adapters, saved, loaded and scored; ``--sequences`` of the test part
(all by default). ``--only outliers`` is a made Llama whose residual stream has outlier channels.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
from language_sizes import NETWORKS, Task
from torch import nn

import corank
from corank.codecs import Codec, ICQuant, Uniform
from corank.data import TokenSet
from corank.storage.model_record import run_of

CODECS: dict[str, Codec] = {
    "minmax": Uniform(half=True),
    "mse": Uniform(range="mse", half=True),
    "output": Uniform(range="output", half=True),
    "g128": Uniform(group=128, range="mse", half=True),
    "g128-output": Uniform(group=128, range="output", half=True),
    "g64": Uniform(group=64, range="mse", half=True),
    "g64-output": Uniform(group=64, range="output", half=True),
    "icquant": ICQuant(levels="kmeans", per="layer"),
    "icquant-row": ICQuant(levels="kmeans", per="row"),
}


def outliers(shared: Path) -> Task:
    """stories260k with outlier columns: of each norm a few gains are a thirtieth of what they were, and the columns
    that read them 30 times, so that it computes the same. "fold" undoes that by the gains alone; "layers" rotates."""
    made, data, test = NETWORKS["stories260k"](shared)

    def stretched() -> nn.Module:
        model = made()
        modules = dict(model.named_modules())
        for name, norm in modules.items():
            if name.endswith("layernorm"):
                block, _, kind = name.rpartition(".")
                read = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
                read = read if kind == "input_layernorm" else ["mlp.gate_proj", "mlp.up_proj"]
                with torch.no_grad():
                    norm.get_parameter("weight")[::21] /= 30
                    for one in read:
                        modules[f"{block}.{one}"].get_parameter("weight")[:, ::21] *= 30
        return model

    return stretched, data, test


def measured(task: Task, asked: dict[str, Any], sequences: int | None) -> dict[str, Any]:
    """Bits a coded weight before entropy coding, bytes of the file, nats of the loaded network, seconds of coding."""
    made, data, test = task
    assert test is not None
    started = time.process_time()
    small = corank.quantize(made(), data, budget=0, **asked)
    seconds, bits = time.process_time() - started, round(run_of(small).equivalent_bits, 3)
    with tempfile.TemporaryDirectory() as folder:
        size = corank.save(small, Path(folder) / "small.safetensors")
        back = corank.load(Path(folder) / "small.safetensors", made())
    return {"bits": bits, "bytes": size, "nats": nats(back, test, sequences), "cpu_s": round(seconds, 1)}


def nats(model: nn.Module, test: TokenSet, sequences: int | None) -> float:
    return round(corank.evaluate(model, TokenSet(test.ids[:sequences])).nats or 0.0, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--only", choices=("stories260k", "shakespeare7m", "outliers"), action="append")
    parser.add_argument("--bits", type=int, action="append")
    parser.add_argument("--rate", type=float, action="append")
    parser.add_argument("--rotate", choices=("off", "fold", "layers"), action="append")
    parser.add_argument("--codec", choices=tuple(CODECS), action="append")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--sequences", type=int)
    options = parser.parse_args()
    torch.set_num_threads(1)
    networks = {**NETWORKS, "outliers": outliers}
    widths: list[dict[str, Any]] = [{"rate": one} for one in options.rate or ()]
    if options.bits or not widths:
        for bits, name in product(options.bits or (4, 3, 2), options.codec or CODECS):
            widths.append({"bits": bits, "codec": name})
    for name in options.only or ("stories260k",):
        task = networks[name](options.shared)
        assert task[2] is not None
        print(name, "float", nats(task[0](), task[2], options.sequences), flush=True)
        for width, how in product(widths, options.rotate or ("off", "fold", "layers")):
            asked = {**width, "rotate": None if how == "off" else how, "preset": options.preset}
            if "codec" in width:
                asked["codec"] = CODECS[width["codec"]].with_bits(width["bits"])
            found = measured(task, {**asked, "samples": options.samples}, options.sequences)
            print(name, options.preset, how, *width.values(), json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
