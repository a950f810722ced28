"""Language models with their cache as inputs and outputs, generating in ONNX Runtime and OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import corank
from corank.codecs import Uniform
from corank.export import export_onnx_matmulnbits, export_openvino, graph
from corank.export.past import exported

transformers = pytest.importorskip("transformers")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

VOCABULARY, PROMPT, NEW = 48, 5, 12
Arrays = dict[str, NDArray[Any]]


def tokens() -> Tensor:
    return torch.randint(VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def small() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, initializer_range=0.3, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    llama = transformers.LlamaForCausalLM(config).eval()
    return corank.quantize(llama, tokens(), codec=Uniform(bits=4, range="mse"), budget=0, preset="nearest")


@pytest.fixture(scope="module", autouse=True)
def traced_once() -> Any:
    """Every export of this file traces the same network."""
    real, held = graph.float_graph, []

    def once(*given: Any, **named: Any) -> Any:
        held.append(held[0] if held else real(*given, **named).SerializeToString())
        return onnx.load_from_string(held[0])

    graph.float_graph = once
    yield
    graph.float_graph = real


def generated(run: Callable[[Arrays], Arrays], prompt: Tensor) -> list[list[int]]:
    """Greedy tokens, each computed from the one before it and what is kept of the others."""
    rows = len(prompt)
    past = {f"past_key_values.0.{name}": np.zeros((rows, 2, 0, 8), np.float32) for name in ("key", "value")}
    ids, length, made = prompt.numpy(), 0, []
    for _ in range(NEW):
        places = np.arange(length, length + ids.shape[1])[None].repeat(rows, 0)
        length += ids.shape[1]
        found = run(
            {"input_ids": ids, "attention_mask": np.ones((rows, length), np.int64), "position_ids": places, **past}
        )
        past = {name: found[name.replace("past_key_values", "present")] for name in past}
        assert all(value.shape == (rows, 2, length, 8) for value in past.values())
        ids = found["logits"][:, -1].argmax(-1)[:, None]
        made.append(ids[:, 0].tolist())
    return [list(row) for row in zip(*made, strict=True)]


def expected(model: Any, prompt: Tensor) -> list[list[int]]:
    real = torch.ones_like(prompt)  # transformers would take the padding's token for padding
    return model.generate(prompt, attention_mask=real, max_new_tokens=NEW, do_sample=False)[:, PROMPT:].tolist()


@pytest.mark.parametrize("rows", [1, 2])
def test_onnxruntime_tells_the_same(small: nn.Module, rows: int, tmp_path: Path) -> None:
    result = export_onnx_matmulnbits(small, tmp_path / "small.onnx", tokens()[:1], past=True)
    assert result.relative_difference is not None and result.relative_difference < 1e-5
    session = ort.InferenceSession(result.path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    assert names == ["logits", "present.0.key", "present.0.value"]
    prompt = tokens()[:rows, :PROMPT]
    found = generated(lambda given: dict(zip(names, session.run(names, given), strict=True)), prompt)
    assert found == expected(small, prompt) and len({*found[0]}) > 2


def test_openvino_tells_the_same(small: nn.Module, tmp_path: Path) -> None:
    ov = pytest.importorskip("openvino")
    result = export_openvino(small, tmp_path / "small.xml", tokens(), past=True)
    compiled = ov.Core().compile_model(str(result.path), "CPU", dict(result.options))

    def run(given: Arrays) -> Arrays:
        found = compiled(given)
        return {one.get_any_name(): np.array(found[one]) for one in compiled.outputs}

    prompt = tokens()[:, :PROMPT]
    assert generated(run, prompt) == expected(small, prompt)


def test_inputs_are_those_of_optimum(small: nn.Module) -> None:
    what = exported(small, {"input_ids": tokens()}, (0,), past=True)
    assert {name: tuple(value.shape) for name, value in what.example.items()} == {
        "input_ids": (2, 6), "attention_mask": (2, 12), "position_ids": (2, 6),
        "past_key_values.0.key": (2, 2, 6, 8), "past_key_values.0.value": (2, 2, 6, 8),
    }  # fmt: skip
    with torch.no_grad():
        given, whole = what.model(**what.example)["logits"], small(tokens()).logits[:, 6:]
    assert torch.allclose(given, whole, atol=1e-5)
    assert exported(small, tokens(), (0, 1), past=False).model is small


def test_what_has_no_past(small: nn.Module) -> None:
    for example in (torch.randn(2, 12), tokens()[:, :3], tokens()[0]):
        with pytest.raises(corank.ConfigError, match="past=True the example is token ids"):
            exported(small, example, (0,), past=True)
    with pytest.raises(corank.ModelError, match="Embedding keeps no keys and values"):
        exported(nn.Embedding(VOCABULARY, 4), tokens(), (0,), past=True)
