"""``import corank.hf``: transformers loads, generates with, saves and trains adapters over what corank quantized."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import corank
from corank.codecs import Uniform
from corank.errors import ArtifactError, ConfigError, ModelError, OutputError
from corank.layers import CodedLinear
from corank.storage.model_record import ATTRIBUTE

transformers = pytest.importorskip("transformers")

import corank.hf  # noqa: E402

IDS = torch.randint(40, (4, 16), generator=torch.Generator().manual_seed(0))
LETTERS = "Ġabcdefghijklmnopqrstuvwxyz.,!?ABCDEFGHI"


def llama(tied: bool = True) -> Any:
    """A tiny Llama with weights large enough to matter."""
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied, initializer_range=0.2,
        pad_token_id=0, eos_token_id=39, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval()


def characters() -> Any:
    """A tokenizer of single characters."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {letter: place for place, letter in enumerate(LETTERS)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="I", pad_token="Ġ")


def quantized(model: Any, **more: Any) -> Any:
    return corank.quantize(model, IDS, bits=4, budget=0.25, preset="nearest", search="uniform", **more)


@pytest.fixture(scope="module")
def small() -> Any:
    """A quantized model that no test changes."""
    return quantized(llama())


@pytest.fixture(scope="module")
def folder(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What corank writes of it."""
    path = tmp_path_factory.mktemp("hub") / "tiny-4bit"
    corank.save_pretrained(small, path, tokenizer=characters())
    return path


def loaded(folder: Path, **more: Any) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **more)


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_loads_what_corank_saved(
    tied: bool, small: Any, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if not tied:
        small, folder = quantized(llama(tied=False)), tmp_path
        corank.save_pretrained(small, folder)
    with caplog.at_level(logging.WARNING, logger="transformers"):
        model = loaded(folder)
    assert torch.equal(logits(model), logits(small)) and not caplog.records
    assert isinstance(model.lm_head, CodedLinear) and not model.training
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    # Shared as it was: no float table beside the codes.
    assert (model.model.embed_tokens.weight is model.lm_head.weight) is tied


def test_no_room_is_made_for_float_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    plain = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda one, **more: made.append(tuple(one.shape)) or plain(one, **more))
    loaded(folder)
    assert made and all(len(shape) == 1 for shape in made)


def test_it_is_saved_as_it_came(small: Any, folder: Path, tmp_path: Path) -> None:
    loaded(folder).save_pretrained(tmp_path)
    first, second = (load_file(path / "model.safetensors") for path in (folder, tmp_path))
    assert list(first) == ["corank"] and torch.equal(first["corank"], second["corank"])
    assert torch.equal(logits(loaded(tmp_path)), logits(small))
    assert torch.equal(logits(corank.from_pretrained(tmp_path, llama)), logits(small))
    facts = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert facts["quant_method"] == "corank" and facts["bits"] == 4 and facts["plan"]


def test_the_folder_is_complete(folder: Path) -> None:
    """What ``push_to_hub`` uploads is this folder."""
    names = {path.name for path in folder.iterdir()}
    assert names >= {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "README.md"}
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and config["dtype"] == "float32"
    assert "import corank.hf\nfrom transformers import AutoModelForCausalLM" in (folder / "README.md").read_text()
    assert transformers.AutoTokenizer.from_pretrained(folder)("ab")["input_ids"] == [1, 2]


def test_a_repository_is_fetched_by_the_name_in_its_configuration(
    small: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(client, "hf_hub_download", lambda filename, **_given: str(folder / filename))
    assert torch.equal(logits(corank.from_pretrained("user/tiny", llama)), logits(small))


def test_greedy_text_is_the_same_with_every_cache(small: Any, folder: Path) -> None:
    model = loaded(folder)
    wanted = small.generate(IDS[:1], max_new_tokens=12, do_sample=False)
    for cache in ("dynamic", "static"):
        found = model.generate(IDS[:1], max_new_tokens=12, do_sample=False, cache_implementation=cache)
        assert torch.equal(found, wanted)


def test_a_pipeline_writes_text(small: Any, folder: Path) -> None:
    write = transformers.pipeline("text-generation", model=str(folder), device="cpu")
    (found,) = write("abc", max_new_tokens=6, do_sample=False)
    ids = small.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=6, do_sample=False)[0]
    assert found["generated_text"] == "".join(LETTERS[one] for one in ids).replace("Ġ", " ")


def test_a_precision_may_be_asked_for(folder: Path) -> None:
    model = loaded(folder, dtype=torch.bfloat16)
    assert model.dtype == model.lm_head.weight.dtype == logits(model).dtype == torch.bfloat16
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_dequantized_it_is_the_float_network(small: Any, folder: Path) -> None:
    plain = loaded(folder).dequantize()
    assert type(plain.lm_head) is torch.nn.Linear and torch.equal(logits(plain), logits(small))


def adapted(folder: Path) -> Any:
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    return peft.get_peft_model(loaded(folder), settings)


def test_ten_steps_of_adapters_leave_the_codes_alone(folder: Path, small: Any, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate")
    peft = pytest.importorskip("peft")
    model = adapted(folder)
    assert torch.equal(logits(model), logits(small))  # adapters begin at zero
    codes = {name: value.clone() for name, value in model.state_dict().items() if "lora" not in name}
    data = [{"input_ids": row, "labels": row} for row in IDS]
    settings = transformers.TrainingArguments(
        tmp_path, max_steps=10, per_device_train_batch_size=4, learning_rate=0.02, report_to=[], use_cpu=True,
        save_strategy="no", logging_strategy="steps", logging_steps=1, disable_tqdm=True, lr_scheduler_type="constant",
        dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = transformers.Trainer(model, settings, train_dataset=data)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 10 and losses[-1] < 0.9 * losses[0]
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in codes.items())
    model.save_pretrained(tmp_path / "adapter")
    names = set(load_file(tmp_path / "adapter/adapter_model.safetensors"))
    assert len(names) == 8 and all("lora_" in name for name in names)
    again = peft.PeftModel.from_pretrained(loaded(folder), tmp_path / "adapter")
    model.eval()
    assert torch.allclose(logits(again), logits(model), atol=1e-5)


def test_adapters_of_transformers_own_are_saved_alone(folder: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = loaded(folder)
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    assert not torch.equal(logits(model), logits(loaded(folder)))
    model.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").is_file() and not (tmp_path / "model.safetensors").exists()


def test_what_does_not_fit_is_told_in_a_sentence(small: Any, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"one device: give device_map='cuda:0'"):
        loaded(folder, device_map={"model": "cpu", "lm_head": "disk"})
    llama().save_pretrained(tmp_path / "float")
    with pytest.raises(OutputError, match=r"holds a float network.*another folder"):
        corank.save_pretrained(small, tmp_path / "float")
    (tmp_path / "wrong").mkdir()
    save_file({"corank": torch.zeros(9, dtype=torch.uint8)}, tmp_path / "wrong/model.safetensors")
    (tmp_path / "wrong/config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ArtifactError):
        loaded(tmp_path / "wrong")
    model = loaded(folder)
    del model.__dict__[ATTRIBUTE]
    with pytest.raises(ModelError, match="no longer what corank loaded"):
        model.save_pretrained(tmp_path / "lost")


def test_a_model_of_the_shared_folder(shared: Path, tmp_path: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(shared / "models/shakespeare7m", dtype=torch.float32)
    ids = torch.arange(48)[None] % 65
    codec = Uniform(bits=4, symmetric=True, group=32)
    small = corank.quantize(model, ids, codec=codec, budget=0, preset="nearest", search="uniform")
    corank.save_pretrained(small, tmp_path)
    again = loaded(tmp_path)
    wanted = small.generate(ids[:, :16], max_new_tokens=8, do_sample=False)
    assert torch.equal(again.generate(ids[:, :16], max_new_tokens=8, do_sample=False), wanted)
    assert (tmp_path / "model.safetensors").stat().st_size < 5e6
