"""GGUF files of `shakespeare7m`, and of a synthetic Llama in ternary types, run by llama.cpp beside corank.

    python bench/to_gguf.py --shared DIR [--llama PYTHON] [--out FILE.json]

``--llama`` is a Python that has llama-cpp-python, built from source:

    python -m venv llama; CMAKE_BUILD_PARALLEL_LEVEL=1 llama/bin/pip install --no-binary :all: llama-cpp-python

Without it files are only read back by the package gguf. Printed for each: bytes; how far weights read by gguf are from
corank's; then of llama.cpp the largest difference of logits over the largest logit, how many predicted tokens are the
same, how many of 100 greedy characters agree before the first that does not, and whether it cuts text like
transformers. Weights stay in their own layout there unless ``--repack`` is given: llama.cpp's copies for other
instructions (AMX) end in a segmentation fault on some virtual machines. It rounds the inputs of layers to 8 bits; the
row "F16" says how far that, and fp16, go without codes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers

import corank
from corank.codecs import Codec, KMeans, Ternary, Uniform
from corank.export import GgufTypes, export_gguf
from corank.export.gguf_llama import gguf_name, in_their_order

sys.path.append(str(Path(__file__).parent.parent / "scripts"))
from character_tokenizer import tokenizer_of

TEXT = "ROMEO:\nBut soft, what light through yonder window breaks?\nIt is the east, and Juliet is the sun.\n"
NEW = 100
RUNNER = """
import json, sys
import numpy as np
import llama_cpp
from llama_cpp import Llama
asked = json.load(open(sys.argv[1]))
default = llama_cpp.llama_cpp.llama_model_default_params
def plain_buffers():
    given = default()
    given.use_extra_bufts = asked["repack"]
    return given
llama_cpp.llama_cpp.llama_model_default_params = plain_buffers
model = Llama(asked["path"], n_ctx=256, n_threads=1, n_batch=256, logits_all=True, verbose=False)
model.eval(asked["ids"])
logits = np.array(model.scores[: len(asked["ids"])])
model.reset()
ids = list(asked["prompt"])
for _ in range(asked["new"]):
    model.reset(); model.eval(ids)
    ids.append(int(np.argmax(model.scores[len(ids) - 1])))
cut = model.tokenize(asked["text"].encode(), add_bos=True) if asked["text"] else None
np.save(asked["out"], logits)
json.dump({"greedy": ids, "cut": cut}, open(asked["answer"], "w"))
"""


def weights_differ(model: Any, path: Path) -> float:
    """The largest difference of a matrix in the file to corank's, over that matrix's largest value."""
    plain = corank.to_float(model)
    held = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    worst = 0.0
    for name, value in plain.state_dict().items():
        if gguf_name(name) not in held:
            continue
        tensor = held[gguf_name(name)]
        found = torch.from_numpy(np.array(gguf.dequantize(np.asarray(tensor.data), tensor.tensor_type)))
        found = in_their_order(name, found, model.config, back=True)
        worst = max(worst, float((found - value).abs().max() / value.abs().max()))
    return worst


def run_by_llama(python: str, model: Any, path: Path, text: str, ids: list[int], repack: bool) -> dict[str, Any]:
    """What llama.cpp gives beside what corank gives."""
    prompt = ids[:7]
    with tempfile.TemporaryDirectory() as folder:
        asked = {
            "path": str(path), "ids": ids, "prompt": prompt, "new": NEW, "text": text, "repack": repack,
            "out": f"{folder}/logits.npy", "answer": f"{folder}/answer.json",
        }  # fmt: skip
        Path(folder, "asked.json").write_text(json.dumps(asked))
        subprocess.run([python, "-c", RUNNER, f"{folder}/asked.json"], check=True)
        theirs, answer = np.load(asked["out"]), json.loads(Path(asked["answer"]).read_text())
    with torch.no_grad():
        ours = model(torch.tensor([ids])).logits[0].numpy()
    own = list(prompt)
    for _ in range(NEW):
        with torch.no_grad():
            own.append(int(model(torch.tensor([own])).logits[0, -1].argmax()))
    same = next((at for at in range(NEW) if own[len(prompt) + at] != answer["greedy"][len(prompt) + at]), NEW)
    return {
        "logits": float(np.abs(theirs - ours).max() / np.abs(ours).max()),
        "predictions": float((theirs.argmax(1) == ours.argmax(1)).mean()),
        "greedy": same,
        "cuts": answer["cut"] == ids if text else None,
    }


def synthetic() -> Any:
    """A Llama whose widths are multiples of 256, of random weights."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=65, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True, initializer_range=0.1,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def main() -> None:
    """Every type, a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--llama", default=None)
    parser.add_argument("--repack", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    source = given.shared / "models/shakespeare7m"
    tokenizer = tokenizer_of(json.loads((source / "characters.json").read_text())["chars"], end="$")
    shakespeare = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    ids = tokenizer(TEXT)["input_ids"]
    groups: tuple[tuple[str, Any, Codec, GgufTypes], ...] = (
        ("Q4_0", shakespeare, Uniform(bits=4, symmetric=True, group=32), GgufTypes()),
        ("Q4_1", shakespeare, Uniform(bits=4, group=32), GgufTypes()),
        ("Q5_0, exact", shakespeare, Uniform(bits=4, group=32), GgufTypes(exact=True)),
        ("Q8_0", shakespeare, Uniform(bits=8, symmetric=True, group=32), GgufTypes()),
        ("F16", shakespeare, KMeans(bits=4), GgufTypes()),
        ("TQ1_0", synthetic(), Ternary(group=256), GgufTypes(("TQ1_0",))),
        ("TQ2_0", synthetic(), Ternary(group=256), GgufTypes(("TQ2_0",))),
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, network, codec, types in groups:
            calibration = torch.tensor([ids])
            model = corank.quantize(network, calibration, codec=codec, budget=0, preset="nearest", search="uniform")
            path = Path(folder, f"{name.partition(',')[0]}.gguf")
            result = export_gguf(model, path, calibration, tokenizer=tokenizer, types=types)
            row: dict[str, Any] = {"type": name, "bytes": result.size_bytes, "weights": weights_differ(model, path)}
            if given.llama is not None:
                row |= run_by_llama(given.llama, model, path, TEXT if network is shakespeare else "", ids, given.repack)
            rows.append(row)
            print(json.dumps(row), flush=True)
    if given.out is not None:
        given.out.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
