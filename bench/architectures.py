"""Architectures of transformers in miniature: quantized, trained for three steps, saved, loaded into a new network.

    python bench/architectures.py [--only 'whisper*'] [--train] [--out bench/results/architectures.json]
    python bench/architectures.py --table

Random weights of 64 features in two layers: this asks whether each kind of layer is coded, stored and found again, not
how well. "Difference" is the largest between outputs before and after the file, "bits" are those of the whole file for
each parameter, "in float" the share of parameters that no code stands for.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

import corank

sys.path.insert(0, str(Path(__file__).parent))
from training_runs import Kept, Record

VOCABULARY = 200
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
TEXT = {**SIZES, "vocab_size": VOCABULARY}
DECODER = {**TEXT, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0}
HEADS = {**DECODER, "head_dim": 16}
PAIR = {
    "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "vocab_size": VOCABULARY,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3,
}  # fmt: skip
TRAINED = {"lsq-w4a4": {}, "stats-2bit": {}, "rate": {"rate": 1.5}}


def tokens(length: int = 24) -> Tensor:
    return torch.randint(5, VOCABULARY, (4, length))


def text() -> dict[str, Tensor]:
    ids = tokens()
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def images(size: int) -> Tensor:
    return torch.randn(4, 3, size, size)


def both() -> dict[str, Tensor]:
    return {"input_ids": tokens(), "decoder_input_ids": tokens(8)}


def looks(**more: Any) -> dict[str, Any]:
    return {**SIZES, "image_size": 32, "patch_size": 8, **more}


# name: class, configuration, samples
Case = tuple[str, str, dict[str, Any], Callable[[], Any]]
CASES: tuple[Case, ...] = (
    ("BertForMaskedLM", "BertConfig", TEXT, text),
    ("RobertaForSequenceClassification", "RobertaConfig", {**TEXT, "max_position_embeddings": 66}, text),
    ("DistilBertForSequenceClassification", "DistilBertConfig",
     {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "vocab_size": VOCABULARY}, text),
    ("DebertaV2ForSequenceClassification", "DebertaV2Config",
     {**TEXT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}, text),
    ("ElectraForSequenceClassification", "ElectraConfig", {**TEXT, "embedding_size": 32}, text),
    ("AlbertForSequenceClassification", "AlbertConfig", {**TEXT, "embedding_size": 32}, text),
    ("ModernBertForSequenceClassification", "ModernBertConfig",
     {**TEXT, "pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}, text),
    ("T5ForConditionalGeneration", "T5Config",
     {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "vocab_size": VOCABULARY}, both),
    ("BartForConditionalGeneration", "BartConfig", PAIR, both),
    ("WhisperForConditionalGeneration", "WhisperConfig", {**PAIR, "num_mel_bins": 40, "max_source_positions": 50},
     lambda: {"input_features": torch.randn(4, 40, 100), "decoder_input_ids": tokens(8)}),
    ("Wav2Vec2ForCTC", "Wav2Vec2Config",
     {**SIZES, "vocab_size": 32, "conv_dim": (32, 32), "conv_stride": (5, 4), "conv_kernel": (10, 8),
      "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
     lambda: {"input_values": torch.randn(4, 2000)}),
    ("ViTForImageClassification", "ViTConfig", looks(), lambda: images(32)),
    ("SwinForImageClassification", "SwinConfig",
     {"image_size": 32, "patch_size": 2, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
     lambda: images(32)),
    ("Dinov2ForImageClassification", "Dinov2Config", looks(), lambda: images(32)),
    ("ConvNextForImageClassification", "ConvNextConfig",
     {"hidden_sizes": [16, 32, 64, 64], "depths": [1, 1, 1, 1]}, lambda: images(64)),
    ("SegformerForSemanticSegmentation", "SegformerConfig",
     {"hidden_sizes": [16, 32, 64, 64], "depths": [1, 1, 1, 1], "decoder_hidden_size": 32}, lambda: images(64)),
    ("CLIPModel", "CLIPConfig",
     {"text_config": {**TEXT, "max_position_embeddings": 32}, "vision_config": looks(), "projection_dim": 32},
     lambda: {"input_ids": tokens(16), "pixel_values": images(32)}),
    ("GPT2LMHeadModel", "GPT2Config", {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": VOCABULARY}, text),
    ("GPTNeoXForCausalLM", "GPTNeoXConfig", TEXT, text),
    ("OPTForCausalLM", "OPTConfig",
     {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 128, "vocab_size": VOCABULARY,
      "word_embed_proj_dim": 64}, text),
    ("BloomForCausalLM", "BloomConfig", {"hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": VOCABULARY}, text),
    ("FalconForCausalLM", "FalconConfig",
     {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": VOCABULARY}, text),
    ("LlamaForCausalLM", "LlamaConfig", DECODER, text),
    ("MistralForCausalLM", "MistralConfig", DECODER, text),
    ("Phi3ForCausalLM", "Phi3Config", DECODER, text),
    ("Gemma2ForCausalLM", "Gemma2Config", HEADS, text),
    ("Qwen3ForCausalLM", "Qwen3Config", HEADS, text),
    ("MixtralForCausalLM", "MixtralConfig", {**DECODER, "num_local_experts": 4}, text),
    ("Qwen3MoeForCausalLM", "Qwen3MoeConfig",
     {**HEADS, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}, text),
    ("GptOssForCausalLM", "GptOssConfig", {**HEADS, "num_local_experts": 4, "num_experts_per_tok": 2}, text),
    ("DeepseekV3ForCausalLM", "DeepseekV3Config",
     {**DECODER, "num_key_value_heads": 4, "moe_intermediate_size": 64, "n_routed_experts": 4,
      "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 32,
      "kv_lora_rank": 32, "qk_rope_head_dim": 16, "v_head_dim": 16, "qk_nope_head_dim": 16}, text),
    ("MambaForCausalLM", "MambaConfig",
     {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": VOCABULARY}, lambda: {"input_ids": tokens()}),
    ("Mamba2ForCausalLM", "Mamba2Config",
     {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": VOCABULARY, "num_heads": 8, "head_dim": 16,
      "n_groups": 2, "state_size": 16}, lambda: {"input_ids": tokens()}),
    ("RwkvForCausalLM", "RwkvConfig",
     {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": VOCABULARY, "context_length": 64},
     lambda: {"input_ids": tokens()}),
)  # fmt: skip


def made(case: Case) -> nn.Module:
    """The network, with fresh numbers."""
    name, configuration, given, _ = case
    return getattr(hf, name)(getattr(hf, configuration)(**given)).eval()


def outputs(model: nn.Module, data: Any) -> Tensor:
    with torch.no_grad():
        found = model(**data) if isinstance(data, dict) else model(data)
    return next(found[name] for name in ("logits", "logits_per_image") if found.get(name) is not None)


def measured(case: Case, how: str) -> Record:
    """Coded (``how`` is "quantize", or a recipe), written, read into a new network."""
    torch.manual_seed(0)
    model, data = made(case), case[3]()
    begun = time.process_time()
    if how == "quantize":
        small = corank.quantize(model, data, rate=3.0)
    else:
        small = corank.train(model, data, how, iterations=3, batch_size=4, **TRAINED[how])
    seconds = time.process_time() - begun
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        size = corank.save(small, file)
        again = corank.load(file, made(case))
        told = corank.inspect(file)
    parameters = sum(one.numel() for one in model.parameters())
    return {
        "parameters": parameters,
        "bits": round(8 * size / parameters, 2),
        "in float": round(sum(one["bytes"] for one in told["float_tensors"]) / 2 / parameters, 4),
        "difference": float((outputs(again, data) - outputs(small, data)).abs().max()),
        "cpu_seconds": round(seconds, 1),
    }


def table(records: dict[str, Record]) -> str:
    lines = [
        "| Architecture | Parameters | Bits each, `rate=3` | In float | Difference, all ways |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, *_ in CASES:
        found = {how: records[f"{name}, {how}"] for how in ("quantize", *TRAINED) if f"{name}, {how}" in records}
        if "quantize" in found:
            one, worst = found["quantize"], max(way["difference"] for way in found.values())
            shown = f"{one['parameters']:,} | {one['bits']:.2f} | {100 * one['in float']:.1f} %"
            lines.append(f"| `{name}` | {shown} | {worst:g} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", metavar="PATTERN")
    parser.add_argument("--train", action="store_true", help="the three recipes, too")
    parser.add_argument("--table", action="store_true", help="print the table of what --out holds; run nothing")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "architectures.json")
    options = parser.parse_args(arguments)
    kept, failed = Kept(options.out), list[str]()
    if options.table:
        print(table(kept.records))
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for case in CASES:
        for how in ("quantize", *(TRAINED if options.train else ())):
            name = f"{case[0]}, {how}"
            if name in kept or not any(fnmatchcase(name, one) for one in options.only or ["*"]):
                continue
            try:
                kept.put(name, measured(case, how))
                print(name, kept.records[name], flush=True)
            except Exception as error:  # which one, and go on: this is what is looked for
                failed.append(f"{name}: {type(error).__name__}: {error}")
                print(failed[-1], flush=True)
    if failed:
        raise SystemExit("\n".join(["failed:", *failed]))


if __name__ == "__main__":
    main()
