"""Products with packed codes against float ones and other int4 kernels, one thread, ratios in one run.

    python bench/packed.py [--widths 1024 2048 4096 11008] [--bits 1 2 3 4 5 6 7 8] [--samples 1 4 16 64]
    python bench/packed.py --llama [--out FILE.json]

The first: weights ``(width, width)``, 11008 by 4096; microseconds of the process, whose best of some rounds in turns
counts, as the machine may be busy. ``float32`` and ``bf16`` are ``F.linear``; ``int4pack`` is torch's
``_weight_int4pack_mm_for_cpu`` in bf16, groups of 128; ``onnxruntime`` is ``MatMulNBits`` at 4 bits, groups of 128,
sums in float32, and ``int8`` the same with inputs in 8 bits, which is less exact; ``openvino`` has 4-bit weights with a
scale for each row. ``4 any`` has levels without equal steps, ``4 groups`` a scale for every 128 columns, ``avx2`` is
the kernel without AVX-512, ``inputs bf16`` gives and takes bf16.

The second: a Llama of 290 million random weights, each form in a process of its own: resident memory beyond that of
the process with its libraries, and tokens a second, each of 24 that follow a prompt of 32.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.codecs import Uniform
from corank.coded_weight import CodedWeight
from corank.kernels import PackedCodes, codebook, codebook_instructions, codebook_linear, laid_out
from corank.layers import CodedLayerState, CodedLinear, CodesLinear, TiedEmbedding
from corank.memory import give_back

_ROUNDS, _SECONDS = 9, 0.02
FORMS = ("float32", "bf16", "4 bits", "2 bits", "4 bits, bf16 beside")


def microseconds(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The best of some rounds of each, in turns, in the process's time."""
    counts, best = dict.fromkeys(calls, 1), dict.fromkeys(calls, float("inf"))
    for name, call in calls.items():
        call()
        started = time.process_time()
        call()
        counts[name] = max(1, int(_SECONDS / max(1e-6, time.process_time() - started)))
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.process_time()
            for _ in range(counts[name]):
                call()
            best[name] = min(best[name], (time.process_time() - started) / counts[name])
    return {name: round(1e6 * seconds, 1) for name, seconds in best.items()}


def packed(rows: int, columns: int, bits: int, group: int = 0, even: bool = True) -> PackedCodes:
    """Random codes."""
    codes = torch.randint(1 << bits, (rows, columns), dtype=torch.uint8)
    levels = torch.arange(1 << bits, dtype=torch.float32) - 2 ** (bits - 1)
    scale = torch.full((rows, columns // group if group else 1), 0.01, dtype=torch.float16)
    levels = levels if even else levels + 0.3 * torch.rand(1 << bits)
    return PackedCodes(laid_out(codes, bits), bits, (rows, columns), levels, scale, None, group)


def by_avx2(x: Tensor, weight: PackedCodes) -> Callable[[], Tensor]:
    def call() -> Tensor:
        with patch.object(codebook, "_capability", lambda: "AVX2"):
            return codebook_linear(x, weight)

    return call


def of_torch(weight: Tensor, x: Tensor) -> dict[str, Callable[[], Any]]:
    """torch's own kernel for 4 bits."""
    rows, columns = weight.shape
    codes = torch.randint(16, (rows, columns), dtype=torch.int32)
    ready = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    scales = torch.rand(columns // 128, rows, 2).to(torch.bfloat16)
    given = x.to(torch.bfloat16)
    return {"int4pack": lambda: torch.ops.aten._weight_int4pack_mm_for_cpu(given, ready, 128, scales)}


def of_onnxruntime(weight: Tensor, x: Tensor) -> dict[str, Callable[[], Any]]:
    """``MatMulNBits``; none where onnxruntime is not installed."""
    try:
        import onnx
        import onnxruntime
    except ImportError:
        return {}
    (rows, columns), calls = weight.shape, dict[str, Callable[[], Any]]()
    rng = np.random.default_rng(0)
    held = {
        "w": rng.integers(0, 256, (rows, columns // 128, 64), dtype=np.uint8),
        "s": np.full(rows * columns // 128, 0.01, np.float32),
    }
    for name, level in (("onnxruntime", 1), ("onnxruntime int8", 4)):
        node = onnx.helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=columns, N=rows,
                                     bits=4, block_size=128, accuracy_level=level)  # fmt: skip
        ends = [
            onnx.helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, ["n", size])
            for end, size in (("x", columns), ("y", rows))
        ]
        tensors = [onnx.numpy_helper.from_array(value, key) for key, value in held.items()]
        graph = onnx.helper.make_graph([node], "product", ends[:1], ends[1:], tensors)
        opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("com.microsoft", 1)]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        given = {"x": x.numpy()}
        calls[name] = lambda session=session, given=given: session.run(None, given)
    return calls


def of_openvino(weight: Tensor, x: Tensor) -> dict[str, Callable[[], Any]]:
    """Weights of ``u4``, sums in float32; none where openvino is not installed."""
    try:
        import openvino as ov
        from openvino import opset13 as ops
    except ImportError:
        return {}
    rows, columns = weight.shape
    codes = np.random.default_rng(0).integers(0, 16, (rows, columns), dtype=np.uint8)
    const = ops.constant(codes, dtype=ov.Type.u4)
    value = ops.subtract(ops.convert(const, np.float32), ops.constant(np.float32(8)))
    value = ops.multiply(value, ops.constant(np.full((rows, 1), 0.01, np.float32)))
    given = ops.parameter([-1, columns], np.float32)
    model = ov.Model([ops.matmul(given, value, False, True)], [given])
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32",
                "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}  # fmt: skip
    request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
    array = x.numpy()
    return {"openvino": lambda: request.infer([array], share_inputs=True)}


def forms_of(rows: int, columns: int, bits: list[int]) -> dict[str, PackedCodes]:
    """The weights that are measured."""
    forms = {f"{one} bits": packed(rows, columns, one) for one in bits}
    if 4 in bits:
        forms |= {"4 any": packed(rows, columns, 4, even=False), "4 groups": packed(rows, columns, 4, 128)}
    if 6 in bits:
        forms["6 any"] = packed(rows, columns, 6, even=False)
    return forms


def measured(weight: Tensor, samples: int, forms: dict[str, PackedCodes], rounds: int) -> dict[str, Any]:
    """One row: microseconds of each, and how many times faster than float32."""
    shape = weight.shape
    x = torch.randn(samples, shape[1])
    half, few = weight.to(torch.bfloat16), x.to(torch.bfloat16)
    calls: dict[str, Callable[[], Any]] = {
        "float32": lambda: F.linear(x, weight),
        "bf16": lambda: F.linear(few, half),
        **of_torch(weight, x),
        **of_onnxruntime(weight, x),
        **of_openvino(weight, x),
    }
    for name, one in forms.items():
        calls[name] = lambda one=one: codebook_linear(x, one)
        calls[f"{name}, avx2"] = by_avx2(x, one)
    if "4 bits" in forms:
        calls["4 bits, inputs bf16"] = lambda: codebook_linear(few, forms["4 bits"])
    found = microseconds(calls, rounds)
    ratios = {name: round(found["float32"] / one, 2) for name, one in found.items()}
    return {"rows": shape[0], "columns": shape[1], "samples": samples, "microseconds": found, "times float32": ratios}


def coded(rows: int, columns: int, bits: int) -> CodesLinear:
    """A layer of random weights, rounded to the nearest, a scale for each row."""
    codec = Uniform(bits=bits, symmetric=bits > 2)
    weight = torch.randn(rows, columns) * 0.02
    book = codec.fit(weight)
    layer = CodedLinear(nn.Linear(columns, rows, bias=False), codec)
    layer.fill(CodedLayerState(codec, CodedWeight(book.nearest(weight), book), None, 8), None)
    return CodesLinear(layer)


def llama(form: str) -> nn.Module:
    """Of 290 million weights, its head tied."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32000, hidden_size=1024, intermediate_size=2816, num_hidden_layers=20, num_attention_heads=16,
        num_key_value_heads=16, tie_word_embeddings=True, max_position_embeddings=256,
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16 if "bf16" in form else torch.float32)
    if not form[0].isdigit():
        with torch.no_grad():
            return LlamaForCausalLM(config).eval()
    with torch.device("meta"):
        model = LlamaForCausalLM(config).eval()
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear:
            made = coded(module.out_features, module.in_features, int(form[0]))
            model.set_submodule(name, made)
    model.model.embed_tokens = TiedEmbedding(model.model.embed_tokens, model.lm_head)
    for name, one in list(model.named_parameters()):
        if one.is_meta:
            module, _, last = name.rpartition(".")
            setattr(model.get_submodule(module), last, nn.Parameter(torch.ones(one.shape), requires_grad=False))
    kind = type(model.model.rotary_emb)
    model.model.rotary_emb = kind(config)
    return model


def resident() -> int:
    """Bytes of this process that are in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def of_llama(form: str) -> dict[str, Any]:
    """One form, in this process."""
    torch.manual_seed(0)
    import transformers  # its memory is the process's own

    transformers.logging.set_verbosity_error()
    config = transformers.LlamaConfig(vocab_size=8, hidden_size=64, num_hidden_layers=1, num_attention_heads=2)
    with torch.inference_mode():
        transformers.LlamaForCausalLM(config)(torch.zeros(1, 4, dtype=torch.long), use_cache=True)
    give_back()
    before = resident()
    model = llama(form)
    give_back()
    held = sum(one.numel() * one.element_size() for one in {*model.parameters(), *model.buffers()})
    ids, best, prefill = torch.randint(32000, (1, 32)), float("inf"), float("inf")
    with torch.inference_mode():
        for _ in range(2):
            started = time.process_time()
            out = model(ids, use_cache=True)
            prefill = min(prefill, time.process_time() - started)
        past = out.past_key_values
        for _ in range(24):
            started = time.process_time()
            out = model(out.logits[:, -1:].argmax(-1), past_key_values=past, use_cache=True)
            best = min(best, time.process_time() - started)
    cache = sum(one.numel() * one.element_size() for layer in past.layers for one in (layer.keys, layer.values))
    taken = resident() - before
    return {
        "form": form, "weights MB": round(held / 1e6, 1), "resident MB": round(taken / 1e6, 1),
        "keys and values MB": round(cache / 1e6, 1), "resident by weights": round(taken / held, 3),
        "decode tokens/s": round(1 / best, 1), "prefill tokens/s": round(32 / prefill, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[1024, 2048, 4096, 11008])
    parser.add_argument("--bits", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6, 7, 8])
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--llama", action="store_true")
    parser.add_argument("--form", choices=FORMS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.form:
        print(json.dumps(of_llama(options.form)))
        return
    found: dict[str, Any] = {"kernel": codebook_instructions()}
    if options.out is not None and options.out.is_file():
        found = {**json.loads(options.out.read_text()), **found}
    if options.llama:
        commands = [[sys.executable, __file__, "--form", form] for form in FORMS]
        found["llama"] = [json.loads(subprocess.run(one, capture_output=True, check=True).stdout) for one in commands]
        print(json.dumps(found["llama"], indent=1))
    else:
        found["products"] = []
        with torch.inference_mode():
            for width in options.widths:
                torch.manual_seed(0)
                weight = torch.randn(width, min(width, 4096))
                forms = forms_of(*weight.shape, options.bits)
                for samples in options.samples:
                    found["products"].append(measured(weight, samples, forms, options.rounds))
                    print(json.dumps(found["products"][-1]), flush=True)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
