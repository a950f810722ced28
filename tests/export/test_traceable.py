"""Networks that torch.onnx cannot take as they are, and graphs that it gets wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.export import export_onnx

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
transformers = pytest.importorskip("transformers")

from corank.export.traceable import traceable, zero_masked_rows  # noqa: E402


def small_llama(**more: Any) -> nn.Module:
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        tie_word_embeddings=True, use_cache=False, **more,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def padded(count: int = 6, length: int = 12) -> dict[str, Tensor]:
    """Tokens with padding on the left, of another length in each sample."""
    ids = torch.randint(64, (count, length))
    return {"input_ids": ids, "attention_mask": (torch.arange(length) >= torch.arange(count)[:, None]).long()}


def ran(path: Path, inputs: dict[str, Tensor]) -> Tensor:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {name: value.numpy() for name, value in inputs.items()})[0])


@pytest.mark.parametrize("grouped", [False, True])
def test_padding_on_the_left_agrees_everywhere(tmp_path: Path, grouped: bool) -> None:
    model = small_llama(**({"num_key_value_heads": 2} if grouped else {}))
    batch = padded()
    small = corank.quantize(model, [batch], bits=4, budget=0, preset="nearest")
    found = export_onnx(small, tmp_path / "small.onnx", batch, dynamic=(0, 1))
    assert found.relative_difference is not None and found.relative_difference < 1e-5
    other = padded(3, 7)  # another number of samples, of another length
    with torch.no_grad():
        wanted = small(**other).logits
    assert torch.allclose(ran(tmp_path / "small.onnx", other), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dynamic", [(0,), (0, 1), ()])
def test_an_encoder_and_decoder(tmp_path: Path, dynamic: tuple[int, ...]) -> None:
    config = transformers.T5Config(
        vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0, use_cache=False
    )
    model = transformers.T5ForConditionalGeneration(config).eval()
    batch = {"input_ids": torch.randint(1, 64, (4, 16)), "decoder_input_ids": torch.randint(1, 64, (4, 12))}
    small = corank.quantize(model, [batch], bits=4, budget=0, preset="nearest")
    found = export_onnx(small, tmp_path / "small.onnx", batch, dynamic=dynamic)
    assert found.relative_difference is not None and found.relative_difference < 1e-5
    assert all(value.requires_grad for value in model.parameters())


@pytest.mark.parametrize("where", ["around", "inside"])
def test_parallel_wrappers(tmp_path: Path, where: str) -> None:
    body: nn.Module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 8))
    if where == "inside":
        body = nn.Sequential(nn.DataParallel(body), nn.Linear(8, 4))
    model = nn.DataParallel(body) if where == "around" else body
    images = torch.randn(8, 3, 8, 8)
    small = corank.quantize(model.eval(), images, bits=4, budget=0, preset="nearest", all_layers=True)
    found = export_onnx(small, tmp_path / "small.onnx", images)
    assert found.relative_difference is not None and found.relative_difference < 1e-5
    names = {initializer.name for initializer in onnx.load(str(tmp_path / "small.onnx")).graph.initializer}
    assert any(name.startswith("module." if where == "around" else "0.module.") for name in names)
    assert isinstance(small if where == "around" else small[0], nn.DataParallel)  # pyright: ignore[reportIndexIssue]


def test_names_and_mode_stay() -> None:
    given = nn.DataParallel(nn.Sequential(nn.Linear(2, 2))).eval()
    names = [name for name, _ in given.named_parameters()]
    found = traceable(given)
    assert [name for name, _ in found.named_parameters()] == names and not found.training
    assert not any(value.requires_grad for value in found.parameters())


def attention(bias: str) -> Any:
    """Weights of attention as torch.onnx writes them, from scores, a mask and values."""
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        make("Where", ["mask", "zero", "least"], ["bias"]),
        make("Add", ["scores", bias], ["added"]),
        make("Softmax", ["added"], ["soft"], axis=-1),
        make("IsNaN", ["soft"], ["nan"]),
        make("Where", ["nan", "zero", "soft"], ["weights"]),
    ]
    held = [onnx.numpy_helper.from_array(torch.tensor(value).numpy(), name) for name, value in (
        ("zero", 0.0), ("least", torch.finfo(torch.float32).min))]  # fmt: skip
    kinds = (("scores", onnx.TensorProto.FLOAT), ("mask", onnx.TensorProto.BOOL))
    inputs = [info(name, kind, [2, 3]) for name, kind in kinds]
    graph = onnx.helper.make_graph(nodes, "attention", inputs, [info("weights", onnx.TensorProto.FLOAT, [2, 3])], held)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)


def test_rows_that_are_masked_whole_are_zero() -> None:
    model = attention("bias")
    zero_masked_rows(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Where", "Add", "Softmax", "Where"]
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    scores, mask = torch.randn(2, 3), torch.tensor([[False, False, False], [True, False, True]])
    (weights,) = session.run(None, {"scores": scores.numpy(), "mask": mask.numpy()})
    masked = scores[1].masked_fill(~mask[1], -torch.inf).softmax(0)
    assert torch.allclose(torch.from_numpy(weights), torch.stack([torch.zeros(3), masked]))


def test_another_use_of_nan_stays() -> None:
    model = attention("least")
    before = model.SerializeToString(deterministic=True)
    zero_masked_rows(model.graph)
    assert model.SerializeToString(deterministic=True) == before
