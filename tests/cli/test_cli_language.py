"""`corank quantize` and `corank evaluate` on a language model, with tokens and with text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
        "model.embed_tokens: an embedding",
        "lm_head: its",
    ):
        assert said in result.stdout, said
    made = json.loads(record.read_text())
    assert made["metric"] == "nats per token" and made["eval_samples"] == 60
    assert made["quantized_value"] == pytest.approx(np.log(27), abs=0.3)
    result = invoke("evaluate", out, "--model", model, "--data", f"{tokens}:test", "--reference")
    assert result.exit_code == 0 and "nats per token of 60" in result.stdout, result.output


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
