"""Other tools and corank on the linear layers of a language model: nats a token against the bits that weights take.

    python bench/peers/language.py --shared DIR --envs DIR [--model stories260k] [--only 'hqq*'] [--out FILE]

Every tool codes the weights of all linear layers of the decoder and nothing else; embeddings, head and norms stay float
for all of them. Tools that read no data get matrices (``language_tools.py``), GPTQ and corank 64 sequences of the
training text. Nats are those of the test text. Finished runs are kept in the output file; then the table is printed.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import tempfile
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from environments import python_of
from safetensors.torch import load_file, save_file
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from language_sizes import shakespeare7m, stories260k  # noqa: E402
from plain_gptq import first_inputs, plain_gptq  # noqa: E402
from run import read, write  # noqa: E402

import corank  # noqa: E402
from corank.codecs import ICQuant  # noqa: E402

MODELS = {"shakespeare7m": shakespeare7m, "stories260k": stories260k}
SAMPLES = 64
Record = dict[str, Any]


def cases() -> dict[str, tuple[str, str, int]]:
    """Name to tool, method and bits."""
    found = {}
    for bits in (4, 3, 2):
        found |= {f"hqq, groups of 64/{bits}": ("hqq", "g64", bits)}
        found |= {f"torchao, groups of 64/{bits}": ("torchao", "g64", bits)}
        found |= {f"GPTQ, plain, a scale a row/{bits}": ("gptq", "row", bits)}
        if bits != 3:
            found |= {f"quanto, {how}/{bits}": ("quanto", how, bits) for how in ("max", "hqq")}
        found |= {f"corank, ICQuant/{bits}": ("corank", "icquant", bits)}
        found |= {f"corank, bits={bits}/{bits}": ("corank", "bits", bits)}
        found |= {f"corank, rate={bits}/{bits}": ("corank", "rate", bits)}
    return found


def layers_of(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of the decoder's blocks."""
    return {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear) and ".layers." in name}


def by_tool(model: nn.Module, envs: Path, tool: str, method: str, bits: int) -> float:
    """Puts what the tool's weights decode to into the model; returns bits a weight."""
    layers = layers_of(model)
    python = python_of(tool, envs, "python3.11")
    with tempfile.TemporaryDirectory() as folder:
        weights = {name: layer.weight.detach().contiguous() for name, layer in layers.items()}
        save_file(weights, Path(folder) / "weights.safetensors")
        command = [str(python), str(HERE / "language_tools.py"), tool, method, str(bits), folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        decoded = load_file(Path(folder) / "decoded.safetensors")
    with torch.no_grad():
        for name, layer in layers.items():
            layer.weight.copy_(decoded[name])
    return float(done.stdout.split()[-1])


def by_gptq(model: nn.Module, data: Any, bits: int) -> float:
    """Plain GPTQ in place."""
    blocks = model.get_submodule("model.layers")
    assert isinstance(blocks, nn.ModuleList)
    tokens = data.sample(SAMPLES, 0).ids
    plain_gptq(blocks, first_inputs(model, blocks, list(tokens.split(16))), bits=bits)
    layers = layers_of(model).values()
    rows, count = sum(len(one.weight) for one in layers), sum(one.weight.numel() for one in layers)
    return bits + 16 * rows / count


def by_corank(model: nn.Module, data: Any, method: str, bits: int) -> tuple[nn.Module, float]:
    """The model with the same layers coded, and bits a weight as its file has them."""
    others = {"lm_head": "float"}  # and the table that is tied to it
    asked: Record = {"rate": float(bits)} if method == "rate" else {"bits": bits, "budget": 0.0}
    if method == "icquant":
        asked["codec"] = ICQuant(bits, levels="kmeans", per="layer")
    small = corank.quantize(model, data, samples=SAMPLES, seed=0, all_layers=True, layers=others, **asked)
    record = corank.inspect(small, codes=True)
    counts = [one["shape"][0] * one["shape"][1] for one in record["layers"]]
    if method != "rate":
        return small, record["equivalent_bits"]
    bits_of = [one["file_bits_per_weight"] for one in record["layers"]]
    return small, sum(one * count for one, count in zip(bits_of, counts, strict=True)) / sum(counts)


def case(task: Any, envs: Path, tool: str, method: str, bits: int) -> Record:
    """One run."""
    make, data, test = task
    model = make().eval()
    reference, began = copy.deepcopy(model), time.process_time()
    if tool == "corank":
        model, stored = by_corank(model, data, method, bits)
    elif tool == "gptq":
        stored = by_gptq(model, data, bits)
    else:
        stored = by_tool(model, envs, tool, method, bits)
    seconds = time.process_time() - began
    found = corank.evaluate(model, test, reference)
    return {"bits": round(stored, 3), "nats": round(found.nats or 0.0, 4), "kl": round(found.kl or 0.0, 4),
            "agreement": round(found.agreement or 0.0, 2), "cpu_seconds": round(seconds, 1)}  # fmt: skip


def table(results: Record, model: str) -> str:
    """Most bits first, then by nats."""
    rows = [(key.split("/"), value) for key, value in results.items() if key.startswith(f"{model}/")]
    rows = [row for row in rows if isinstance(row[1], dict)]
    rows.sort(key=lambda row: (-int(row[0][2]), row[1]["nats"]))
    lines = ["| Codes | Tool | Bits a weight | Nats | KL | Agreement |", "|---|---|--:|--:|--:|--:|"]
    lines += [
        f"| {key[2]} bit | {key[1]} | {one['bits']:.2f} | {one['nats']:.3f} | {one['kl']:.3f} "
        f"| {one['agreement']:.1f} |"
        for key, one in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--envs", type=Path, required=True)
    parser.add_argument("--model", choices=tuple(MODELS), default="shakespeare7m")
    parser.add_argument("--only", action="append", metavar="PATTERN")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "language.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = MODELS[options.model](options.shared)
    if f"{options.model}/float" not in read(options.out):
        score = corank.evaluate(task[0]().eval(), task[2])
        write(options.out, {**read(options.out), f"{options.model}/float": round(score.nats or 0.0, 4)})
    for name, (tool, method, bits) in cases().items():
        key = f"{options.model}/{name}"
        if key in read(options.out) or not any(fnmatchcase(name, one) for one in options.only or ["*"]):
            continue
        result = case(task, options.envs.resolve(), tool, method, bits)
        write(options.out, {**read(options.out), key: result})
        print(key, json.dumps(result), flush=True)
    print(table(read(options.out), options.model))


if __name__ == "__main__":
    main()
