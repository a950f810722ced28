"""`corank quantize` and `corank evaluate` on a language model, with tokens and with text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corank.codecs import Uniform
from corank.storage.artifact import read

transformers = pytest.importorskip("transformers")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny language model with its tokenizer, token ids and text."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    config = transformers.LlamaConfig(
        vocab_size=27, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "net")
    letters = {letter: place for place, letter in enumerate("?abcdefghijklmnopqrstuvwxyz")}
    plain = Tokenizer(models.WordLevel(letters, unk_token="?"))
    plain.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="?").save_pretrained(tmp_path / "net")
    ids = np.random.RandomState(0).randint(0, 27, (8, 16)).astype(np.int16)
    np.savez(tmp_path / "tokens.npz", calibration=ids, test=ids[:4])
    (tmp_path / "text.txt").write_text("thequickbrownfoxjumpsoverthelazydog" * 4)
    return tmp_path


def test_tokens_in_nats_out(invoke: Any, folder: Path) -> None:
    out, record = folder / "small.safetensors", folder / "record.json"
    tokens, model = folder / "tokens.npz", f"hf:{folder / 'net'}"
    words = ["--data", tokens, "--eval", f"{tokens}:test", "--preset", "nearest", "--out", out, "--record", record]
    result = invoke("quantize", model, *words)
    assert result.exit_code == 0, result.output
    for said in (
        "nats per token of 60",
        "perplexity",
        "same next token",
        "lm_head: its",
    ):
        assert said in result.stdout, said
    made = json.loads(record.read_text())
    assert made["metric"] == "nats per token" and made["eval_samples"] == 60
    assert made["quantized_value"] == pytest.approx(np.log(27), abs=0.3)
    result = invoke("evaluate", out, "--model", model, "--data", f"{tokens}:test", "--reference")
    assert result.exit_code == 0 and "nats per token of 60" in result.stdout, result.output
    words = ["--model", model, "--data", f"{tokens}:test", "--reference", "--packed", "--speed", "--record", record]
    result = invoke("evaluate", out, *words)
    assert result.exit_code == 0 and "weights in memory" in result.stdout, result.output
    packed = json.loads(record.read_text())
    assert packed["quantized_value"] == pytest.approx(made["quantized_value"], abs=1e-4)
    speed = packed["speed"]
    assert min(speed[name][key] for name in ("float", "quantized") for key in ("prefill", "decode")) > 0
    assert speed["quantized"]["held_bytes"] < 0.6 * speed["float"]["held_bytes"]


def test_text_by_the_tokenizer_of_the_model(invoke: Any, folder: Path) -> None:
    words = [
        "--data",
        folder / "text.txt",
        "--eval",
        f"{folder / 'text.txt'}[:2]",
        "--preset",
        "nearest",
        "--length",
        "20",
    ]
    result = invoke("quantize", f"hf:{folder / 'net'}", *words, "--out", folder / "small.safetensors")
    assert result.exit_code == 0 and "nats per token of 38" in result.stdout, result.output


def test_a_folder_read_layer_by_layer(invoke: Any, folder: Path) -> None:
    pytest.importorskip("accelerate")
    tokens, out = folder / "tokens.npz", folder / "small.safetensors"
    words = ["--stream", "--data", tokens, "--preset", "nearest", "--bits", "4", "--out", out]
    result = invoke("quantize", folder / "net", *words, "--record", folder / "record.json")
    assert result.exit_code == 0, result.output
    assert json.loads((folder / "record.json").read_text())["stored_bytes"] == out.stat().st_size
    result = invoke("evaluate", out, "--model", f"hf:{folder / 'net'}", "--data", f"{tokens}:test", "--reference")
    assert result.exit_code == 0 and "nats per token of 60" in result.stdout, result.output
    for more, said in (
        (["--eval", tokens], "--eval"),
        (["--size", "1MB"], "--size"),
        (["--budget", "0.1"], "--budget"),
    ):
        result = invoke("quantize", folder / "net", *words, *more)
        assert result.exit_code == 2 and f"{said} were given" in result.stderr.replace("\n", " "), result.output


def test_max_drop_is_in_nats(invoke: Any, folder: Path) -> None:
    tokens = folder / "tokens.npz"
    words = ["--data", tokens, "--eval", tokens, "--max-drop", "0.05", "--preset", "nearest"]
    result = invoke("quantize", f"hf:{folder / 'net'}", *words, "--out", folder / "small.safetensors")
    assert result.exit_code == 0, result.output


def test_refusals(invoke: Any, folder: Path) -> None:
    out = ["--out", folder / "small.safetensors"]
    for words, said in (
        (["--data", folder / "none.npz"], "no tokens at"),
        (["--data", f"{folder / 'tokens.npz'}:none"], "no array 'none'"),
        (["--data", folder / "tokens.npz", "--image-size", "8"], "--image-size"),
        (["--data", folder / "tokens.npz", "--length", "1"], "from 2"),
    ):
        result = invoke("quantize", f"hf:{folder / 'net'}", *words, *out)
        assert result.exit_code == 2 and said in result.stderr, result.output


def test_compare_shows_nats(invoke: Any, folder: Path, tmp_path: Path) -> None:
    tokens = folder / "tokens.npz"
    words = ["--data", tokens, "--eval", f"{tokens}:test", "--codecs", "uniform", "--bits", "3", "--adapters", "0"]
    result = invoke("compare", f"hf:{folder / 'net'}", *words, "--samples", "8", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    rows = (tmp_path / "compare.md").read_text().splitlines()
    assert "nats per token" in rows[0] and [row.split("|")[1].strip() for row in rows[2:]] == [
        "float",
        "uniform nearest 3",
        "uniform gptq 3",
    ]
    for row in rows[2:]:
        assert float(row.split("|")[4]) == pytest.approx(np.log(27), abs=0.3)


def test_exports_of_language_models(invoke: Any, folder: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    artifact, model, tokens = folder / "small.safetensors", f"hf:{folder / 'net'}", folder / "tokens.npz"
    words = ["--data", tokens, "--preset", "nearest", "--out", artifact, "--quiet"]
    assert invoke("quantize", model, *words).exit_code == 0
    out, record = folder / "small.onnx", folder / "export.json"
    for more in (["--input", "2x9"], ["--data", f"{tokens}:test[:2]", "--length", "7"]):
        out.unlink(missing_ok=True)
        result = invoke("export", model, artifact, "--to", "onnx", "--out", out, "--record", record, "--json", *more)
        assert result.exit_code == 0, result.output
        made = json.loads(record.read_text())
        assert made["relative_difference"] < 1e-4 and {**made, "format": 1} == {
            "format": 1,
            **json.loads(result.stdout),
        }
        session = ort.InferenceSession(str(out), providers=["CPUExecutionProvider"])
        for count, length in ((1, 5), (3, 11)):  # the batch and the length of texts are open
            ids = np.random.RandomState(0).randint(0, 27, (count, length))
            assert session.run(["logits"], {"input": ids})[0].shape == (count, length, 27)
    result = invoke("export", model, artifact, "--to", "onnx", "--out", out, "--dynamic", "none", "--quiet")
    assert result.exit_code == 0, result.output
    session = ort.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 32]
    for more, said in (
        (["--input", "1x3x8x8"], "could not run"),
        (["--input", "9"], "e.g. --input 1x32"),
        (["--dynamic", "x"], "--dynamic 0,1, or none"),
        (["--mean", "0.5", "--data", tokens], "reads tokens"),
    ):
        result = invoke("export", model, artifact, "--to", "onnx", "--out", out, *more)
        assert result.exit_code == 2 and said in result.stderr.replace("\n", " "), result.output


def test_a_language_model_of_ones_own(invoke: Any, folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    code = f"""
import torch, transformers

def net():
    return transformers.AutoModelForCausalLM.from_pretrained({str(folder / "net")!r})

def ids():
    return torch.randint(27, (8, 12), generator=torch.Generator().manual_seed(0))

def padded():
    return {{"input_ids": ids(), "attention_mask": (torch.arange(12) >= torch.arange(8)[:, None] // 2).long()}}
"""
    (folder / "own.py").write_text(code)
    own, artifact = f"{folder / 'own.py'}", folder / "small.safetensors"
    for data, model in (("ids", "own"), ("padded", "hf")):
        name = f"{own}:net" if model == "own" else f"hf:{folder / 'net'}"
        words = ["--data", f"{own}:{data}", "--eval", f"{own}:{data}", "--preset", "nearest", "--out", artifact]
        result = invoke("quantize", name, *words)
        assert result.exit_code == 0 and "nats per token" in result.stdout and "RANDOM" not in result.stderr, (
            result.output
        )
        words = ["--to", "onnx", "--out", folder / "small.onnx", "--data", f"{own}:{data}", "--quiet"]
        result = invoke("export", name, artifact, *words)
        assert result.exit_code == 0, result.output


def test_rotations_and_groups(invoke: Any, folder: Path) -> None:
    out, tokens, model = folder / "small.safetensors", folder / "tokens.npz", f"hf:{folder / 'net'}"
    words = ["--data", tokens, "--preset", "nearest", "--bits", "3", "--out", out]
    result = invoke("quantize", model, *words, "--rotate", "fold", "--codec", "uniform:group=8")
    assert result.exit_code == 0, result.output
    run = read(out)[0]
    assert run.structure == ({"kind": "rotated-stream", "module": "lm_head", "untied": True, "seed": 0},)
    assert {plan.codec for plan in run.plan.coded().values()} == {Uniform(3, range="mse", group=8)}
    result = invoke("quantize", model, *words, "--rotate", "both")
    assert result.exit_code == 2 and "rotate='both'" in result.output, result.output
