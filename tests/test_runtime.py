"""Sessions built from an artifact when it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import corank
import corank.runtime
from corank.data import load
from corank.export import Int8
from corank.models.digits import digits_net

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runtime") / "digits.safetensors"
    images = load("digits:train")
    corank.save(corank.quantize(digits_net(), images, bits=3, samples=64, preset="nearest"), path)
    return path


def test_float_gives_what_the_loaded_module_gives(artifact: Path) -> None:
    test = load("digits:test").tensor()[:100]
    session = corank.runtime.session(artifact, digits_net, test[:1], kind="float", threads=1)
    loaded = corank.load(artifact, digits_net)
    for images in (test, test[:1]):
        expected = loaded(images)
        given = session(images)
        assert given.dtype == torch.float32 and not given.requires_grad
        assert float((given - expected).abs().max()) < 1e-5 * float(expected.abs().max())
    assert session.kind == "float" and session.kept == ()


def test_int8_follows_the_loaded_module(artifact: Path) -> None:
    test = load("digits:test").tensor()
    session = corank.runtime.session(artifact, digits_net, load("digits:train"), settings=Int8(samples=32))
    expected, given = corank.load(artifact, digits_net)(test), session(test)
    assert float((given - expected).norm() / expected.norm()) < 0.05
    assert float((given.argmax(1) == expected.argmax(1)).float().mean()) > 0.97
    assert "run" not in repr(session)
    assert [path.name for path in artifact.parent.iterdir()] == [artifact.name], "nothing is written"


class Several(nn.Module):
    """Named inputs, several outputs."""

    def __init__(self, named: bool) -> None:
        super().__init__()
        self.one, self.two, self.named = nn.Linear(6, 4), nn.Linear(4, 3), named

    def forward(self, left: Tensor, right: Tensor) -> Any:
        x = torch.relu(self.one(left + right))
        y = self.two(x)
        return {"hidden": x, "logits": y} if self.named else (x, y)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("kind", corank.runtime.KINDS)
def test_named_inputs_and_several_outputs(named: bool, kind: str, tmp_path: Path) -> None:
    batch = {"left": torch.randn(24, 6), "right": torch.randn(24, 6)}
    model = corank.quantize(Several(named).eval(), [batch], bits=4, preset="nearest", budget=0.0)
    corank.save(model, tmp_path / "several.safetensors")
    session = corank.runtime.session(tmp_path / "several.safetensors", lambda: Several(named), [batch], kind=kind)
    given, expected = session(**batch), model(**batch)
    assert type(given) is type(expected) and len(given) == 2
    pairs = zip(given.values(), expected.values(), strict=True) if named else zip(given, expected, strict=True)
    for one, other in pairs:
        assert float((one - other).norm() / other.norm()) < (1e-5 if kind == "float" else 0.03)
    with pytest.raises(corank.ConfigError, match="by keyword"):
        session(batch["left"], right=batch["right"])


def test_what_is_refused(artifact: Path) -> None:
    images = load("digits:test").tensor()[:2]
    with pytest.raises(corank.ConfigError, match="kind='int4'"):
        corank.runtime.session(artifact, digits_net, images, kind="int4")
    with pytest.raises(corank.ConfigError, match="threads=0"):
        corank.runtime.session(artifact, digits_net, images, threads=0)
    with pytest.raises(corank.DataError):
        corank.runtime.session(artifact, digits_net, "images/")
    with pytest.raises(corank.CorankError):
        corank.runtime.session(artifact.parent / "none.safetensors", digits_net, images)
