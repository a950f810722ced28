"""torch.export and torch.compile of coded models: equal outputs, and graphs that decode nothing."""

from __future__ import annotations

import copy
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn

import corank
from corank.layers import CodedLayer

BATCH = {0: torch.export.Dim.DYNAMIC}
DECODING = ("shift", "bitwise_and", "uint8")


@pytest.fixture(scope="module", params=[None, 8], ids=["weights", "weights and inputs"])
def loaded(
    request: pytest.FixtureRequest, every_kind: nn.Module, images: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], nn.Module]:
    """Loads one artifact anew at every call."""
    path = tmp_path_factory.mktemp("torch") / "model.safetensors"
    coded = corank.quantize(every_kind, images, bits=3, budget=0.4, preset="nearest", activations=request.param)
    corank.save(coded, path)
    return lambda: corank.load(path, every_kind)


def cold(model: nn.Module) -> nn.Module:
    """The same model with no weight composed yet."""
    for layer in model.modules():
        if isinstance(layer, CodedLayer):
            layer._cache = layer._feed = None
    return model


def decodes(graph: fx.Graph) -> bool:
    return any(word in str(node.target) for node in graph.nodes for word in DECODING)


@pytest.mark.parametrize("strict", [False, True])
def test_a_loaded_model_is_exported_with_its_weights_as_constants(
    loaded: Callable[[], nn.Module], images: Tensor, strict: bool
) -> None:
    model = loaded()
    program = torch.export.export(model, (images,), strict=strict)
    assert not decodes(program.graph)
    assert torch.equal(program.module()(images), model(images))


@pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec:FutureWarning")  # torch's own
def test_programs_are_decomposed_saved_and_loaded_with_a_dynamic_batch(
    loaded: Callable[[], nn.Module], images: Tensor
) -> None:
    model = loaded()
    program = torch.export.export(model, (images,), dynamic_shapes=(BATCH,)).run_decompositions()
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    again = torch.export.load(file).module()
    for batch in (images, images[:5]):
        torch.testing.assert_close(again(batch), model(batch), rtol=1e-5, atol=1e-6)


def test_a_model_never_called_is_exported_with_its_codes(loaded: Callable[[], nn.Module], images: Tensor) -> None:
    model = cold(loaded())
    with torch.no_grad():
        program = torch.export.export(model, (images,), dynamic_shapes=(BATCH,))
    assert decodes(program.graph)
    for layer in model.modules():
        assert not isinstance(layer, CodedLayer) or layer._cache is None, "tracing left a tensor behind"
    torch.testing.assert_close(program.module()(images[:5]), model(images[:5]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prepare", [cold, copy.deepcopy, nn.Module.eval])
def test_compiled_whole_and_without_decoding(
    loaded: Callable[[], nn.Module], images: Tensor, prepare: Callable[[nn.Module], nn.Module]
) -> None:
    graphs: list[fx.Graph] = []

    def backend(module: fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., object]:
        graphs.append(module.graph)
        return module.forward

    torch.compiler.reset()
    model = prepare(loaded())
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    expected = loaded()(images)
    for _ in range(2):
        assert torch.equal(compiled(images), expected)
    assert len(graphs) == 1 and not decodes(graphs[0])


def test_a_compiled_model_follows_its_codes() -> None:
    torch.compiler.reset()
    model, other = (coded_linear(seed) for seed in (1, 2))
    inputs = torch.randn(3, 8)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    first = compiled(inputs)
    model.load_state_dict(other.state_dict())
    assert torch.equal(compiled(inputs), other(inputs))
    assert not torch.equal(compiled(inputs), first)
    assert compiled.double()(inputs.double()).dtype == torch.float64  # pyright: ignore[reportAttributeAccessIssue]


def test_layers_of_equal_geometry_share_no_compiled_weight() -> None:
    torch.compiler.reset()
    inputs = torch.randn(3, 8)
    for seed in range(3):
        layer = coded_linear(seed)
        expected = coded_linear(seed)(inputs)
        assert torch.equal(torch.compile(layer, backend="eager", fullgraph=True)(inputs), expected)


@pytest.mark.skipif(shutil.which("c++") is None, reason="inductor needs a C++ compiler")
def test_inductor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    model, inputs = coded_linear(1), torch.randn(3, 8)
    expected = copy.deepcopy(model)(inputs)
    compiled = torch.compile(model, backend="inductor", fullgraph=True)
    torch.testing.assert_close(compiled(inputs), expected)


def coded_linear(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return cold(corank.quantize(nn.Sequential(nn.Linear(8, 4)), torch.randn(32, 8), bits=3, preset="nearest"))
