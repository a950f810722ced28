"""`shakespeare7m` generating in ONNX Runtime and OpenVINO: characters as in PyTorch, tokens a second, bytes, memory.

    python bench/generate_exported.py --shared DIR [--only NAME] [--targets NAME ...] [--out results.json]

Each file runs in a process of its own that has numpy and its runtime alone, on one thread: 100 characters are generated
greedily, one at a time, after two lines of text. Seconds are of the processor, so that a busy machine counts little.
*Memory* is what the process holds more than before the file was opened, once all were generated. Characters are
compared with those of the quantized network in PyTorch. Weights are rounded to the nearest values: what the text is
worth is not asked here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

import corank
from corank.codecs import Uniform
from corank.export import ExportResult, export_onnx, export_onnx_matmulnbits, export_openvino
from corank.models import resolve

NEW = 100
TEXT = "ROMEO:\nBut soft, what light through yonder window breaks?\n"
QUANTIZED: Mapping[str, Mapping[str, Any]] = {
    "4 bits": {"codec": Uniform(4, range="mse"), "budget": 0.0},
    "2 bits": {"codec": Uniform(2, range="mse", half=True), "budget": 0.0},
    "rate=2": {"rate": 2.0},
}
TARGETS: Mapping[str, tuple[str, Callable[..., ExportResult], Mapping[str, Any]]] = {
    "onnx-matmulnbits": ("net.onnx", export_onnx_matmulnbits, {}),
    "the same, accuracy_level=4": ("net.onnx", export_onnx_matmulnbits, {"accuracy_level": 4}),
    "openvino": ("net.xml", export_openvino, {}),
    "onnx": ("net.onnx", export_onnx, {}),
}
RUNNER = """
import json, sys, time
import numpy as np

path, options, prompt, new = json.loads(sys.argv[1])

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

if path.endswith(".onnx"):
    import onnxruntime
    held = resident()
    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = 1
    for name, value in options.items():
        chosen.add_session_config_entry(name, value)
    session = onnxruntime.InferenceSession(path, chosen, providers=["CPUExecutionProvider"])
    shapes = {one.name: one.shape for one in session.get_inputs()}
    names = [one.name for one in session.get_outputs()]
    run = lambda given: dict(zip(names, session.run(names, given)))
else:
    import openvino
    held = resident()
    chosen = {**options, "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(path, "CPU", chosen)
    shapes = {one.get_any_name(): [int(size.get_length()) if size.is_static else None for size in one.partial_shape]
              for one in compiled.inputs}
    def run(given):
        found = compiled(given)
        return {one.get_any_name(): np.array(found[one]) for one in compiled.outputs}

def generate(new):
    past = {name: np.zeros((1, shape[1], 0, shape[3]), np.float32) for name, shape in shapes.items() if "past" in name}
    ids, length, made = np.array([prompt], np.int64), 0, []
    for _ in range(new):
        places = np.arange(length, length + ids.shape[1], dtype=np.int64)[None]
        length += ids.shape[1]
        given = {"input_ids": ids, "position_ids": places, "attention_mask": np.ones((1, length), np.int64)}
        found = run({**given, **past})
        past = {name: found[name.replace("past_key_values", "present")] for name in past}
        made.append(int(found["logits"][0, -1].argmax()))
        ids = np.array([[made[-1]]], np.int64)
    return made

generate(3)
best = 1e9
for _ in range(3):
    started = time.process_time()
    made = generate(new)
    best = min(best, time.process_time() - started)
print(json.dumps({"made": made, "tokens_per_second": new / best, "memory": resident() - held}))
"""


def in_torch(model: Any, ids: list[int]) -> dict[str, Any]:
    """The same in PyTorch, with weights composed as floats."""
    best, made, prompt = 1e9, [], torch.tensor([ids])
    for _ in range(3):
        started = time.process_time()
        found = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW, do_sample=False)
        best, made = min(best, time.process_time() - started), found[0, len(ids) :].tolist()
    return {"made": made, "tokens_per_second": NEW / best}


def in_runtime(result: ExportResult, ids: list[int]) -> dict[str, Any]:
    """What a process of its own says."""
    asked = json.dumps([str(result.path), dict(result.options), ids, NEW])
    done = subprocess.run([sys.executable, "-c", RUNNER, asked], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main() -> None:
    """Every network in every runtime, a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--only", choices=QUANTIZED, default=None)
    parser.add_argument("--targets", choices=TARGETS, nargs="*", default=list(TARGETS))
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    source = given.shared / "models/shakespeare7m"
    characters = json.loads((source / "characters.json").read_text())["chars"]
    text = (given.shared / "data/tinyshakespeare.txt").read_text()
    tokens = torch.tensor([characters.index(one) for one in text[: 16 * 256]]).view(16, 256)
    ids, rows = [characters.index(one) for one in TEXT], []
    for name, how in QUANTIZED.items():
        if given.only not in (None, name):
            continue
        model = corank.quantize(resolve(f"hf:{source}").model.float(), tokens, preset="nearest", **how)
        expected = in_torch(model, ids)
        rows.append({"network": name, "runtime": "PyTorch", "tokens_per_second": expected["tokens_per_second"]})
        print(json.dumps(rows[-1]), flush=True)
        for target in given.targets:
            file, export, settings = TARGETS[target]
            with tempfile.TemporaryDirectory() as folder:
                result = export(model, Path(folder, file), tokens[:1, :32], past=True, **settings)
                found = in_runtime(result, ids)
            made = found.pop("made")
            same = next((at for at in range(NEW) if made[at] != expected["made"][at]), NEW)
            row = {"network": name, "runtime": target, "bytes": result.size_bytes, "float_bytes": result.float_bytes}
            rows.append({**row, "difference": result.relative_difference, "same": same, **found})
            print(json.dumps(rows[-1]), flush=True)
    if given.out is not None:
        given.out.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
