from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from corank.data import Preprocessing, Tokenization
from corank.errors import ModelError
from corank.models import resolve

transformers = pytest.importorskip("transformers")


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """A tiny image classifier as a folder, stored in half precision."""
    config = transformers.MobileNetV1Config(depth_multiplier=0.25, num_labels=3)
    folder = tmp_path / "net"
    transformers.MobileNetV1ForImageClassification(config).half().save_pretrained(folder)
    settings = {
        "size": {"shortest_edge": 256},
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.5, 0.6, 0.7],
        "resample": 3,
        "image_processor_type": "MobileNetV1ImageProcessor",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def test_a_folder_is_its_weights(classifier: Path) -> None:
    found = resolve(f"hf:{classifier}")
    stored = load_file(classifier / "model.safetensors")
    assert not found.random and found.weights == str(classifier) and found.weights_sha256 is not None
    assert found.model.state_dict()["classifier.weight"].equal(stored["classifier.weight"].float())
    expected = Preprocessing(224, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), crop=0.875, interpolation="bicubic")
    assert found.preprocessing == expected


def test_other_weights_may_be_given(classifier: Path, tmp_path: Path) -> None:
    state = {name: torch.ones_like(value) for name, value in load_file(classifier / "model.safetensors").items()}
    save_file(state, tmp_path / "ones.safetensors")
    found = resolve(f"hf:{classifier}", weights=tmp_path / "ones.safetensors")
    assert found.weights == str(tmp_path / "ones.safetensors")
    assert bool((found.model.state_dict()["classifier.weight"] == 1).all())


def test_missing_weights_are_not_made_up(classifier: Path) -> None:
    state = load_file(classifier / "model.safetensors")
    del state["classifier.weight"]
    save_file(state, classifier / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"classifier\.weight"):
        resolve(f"hf:{classifier}")


@pytest.mark.parametrize("keep", [1000, 40_000])
def test_damaged_weights(classifier: Path, keep: int) -> None:
    path = classifier / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model\.safetensors is cut short"):
        resolve(f"hf:{classifier}")


@pytest.mark.parametrize("fault", ["missing", "short", "index", "pointer"])
def test_a_folder_of_parts_that_is_not_whole(tmp_path: Path, fault: str) -> None:
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path, max_shard_size="20KB")
    parts, index = sorted(tmp_path.glob("*-of-*.safetensors")), tmp_path / "model.safetensors.index.json"
    assert len(parts) > 2 and not resolve(f"hf:{tmp_path}").random
    said = {
        "missing": f"lacks 1 of {len(parts)} parts of the weights: {parts[1].name}",
        "short": rf"{parts[1].name} is cut short: \d+ bytes of \d+",
        "index": "is not a sound index of weights files, or cut short",
        "pointer": "is a Git LFS pointer",
    }[fault]
    if fault == "missing":
        parts[1].unlink()
    elif fault == "short":
        parts[1].write_bytes(parts[1].read_bytes()[:-100])
    elif fault == "index":
        index.write_text(index.read_text()[:200])
    else:
        parts[1].write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 133\n")
    with pytest.raises(ModelError, match=said):
        resolve(f"hf:{tmp_path}")


def test_pickled_weights_are_not_read(classifier: Path) -> None:
    torch.save(load_file(classifier / "model.safetensors"), classifier / "pytorch_model.bin")
    (classifier / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no \.safetensors file"):
        resolve(f"hf:{classifier}")


def test_code_in_a_folder_is_never_run(tmp_path: Path) -> None:
    config = {
        "model_type": "someones_own",
        "architectures": ["OwnForImageClassification"],
        "auto_map": {"AutoConfig": "own.Own", "AutoModelForImageClassification": "own.Own"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'attacked')!r}, 'w')\n")
    with pytest.raises(ModelError, match="cannot be read"):
        resolve(f"hf:{tmp_path}")
    assert not (tmp_path / "attacked").exists()


def test_other_kinds_of_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertForMaskedLM"]}')
    with pytest.raises(ModelError, match=r"BertForMaskedLM.*ForImageClassification"):
        resolve(f"hf:{tmp_path}")


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no folder"):
        resolve(f"hf:{tmp_path / 'nowhere'}")


def test_stories(shared: Path) -> None:
    """The language model of the shared folder predicts the tokens it once wrote: 1.304 nats each."""
    found = resolve(f"hf:{shared / 'models' / 'stories260k'}")
    assert type(found.model).__name__ == "LlamaForCausalLM" and not found.random
    tokens = torch.from_numpy(np.load(shared / "data" / "stories260k_tokens.npz")["test"][:16].astype(np.int64))
    with torch.no_grad():
        logits = found.model(tokens).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(1.304, abs=0.1)


def test_stories_through_a_weights_file(shared: Path, tmp_path: Path) -> None:
    folder = shared / "models" / "stories260k"
    shutil.copy(folder / "config.json", tmp_path / "config.json")
    found = resolve(f"hf:{tmp_path}", weights=folder / "model.safetensors")
    expected = resolve(f"hf:{folder}").model.state_dict()
    assert all(value.equal(expected[name]) for name, value in found.model.state_dict().items())


def test_a_language_model_says_how_it_reads_text(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    found = resolve(f"hf:{tmp_path / 'llama'}")
    assert found.tokenization == Tokenization(64, str(tmp_path / "llama"), 50)
    assert not found.random and found.weights_sha256 is not None


def test_a_classifier_reads_no_text(classifier: Path) -> None:
    assert resolve(f"hf:{classifier}").tokenization is None
