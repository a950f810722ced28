"""Files of earlier versions give the same numbers, bit for bit; made by ``scripts/golden.py``, and never made anew."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fuzzing.artifacts import SAMPLES
from fuzzing.parts import CurrentParts
from safetensors import safe_open
from torch import Tensor, nn

import corank
from corank.layers import CodedLayer
from corank.storage.artifact import read, serialized
from corank.storage.artifact_file import FORMAT, FORMAT_OF_CODED_NUMBERS

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(GOLDEN.glob("v*/*.safetensors"))


def expected(name: str) -> tuple[dict[str, Tensor], bool]:
    with safe_open(GOLDEN / "expected" / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()["exact"] == "yes"  # noqa: SIM118


def loaded(path: Path, name: str) -> nn.Module:
    """The network in the precision of its file."""
    return corank.load(path, SAMPLES[name].network(), dtype=torch.float16 if name == "half" else None)


@pytest.mark.parametrize("path", FILES, ids=[f"{path.parent.name}-{path.stem}" for path in FILES])
def test_a_golden_file_gives_the_same_bits(path: Path) -> None:
    name, _, coder = path.stem.partition(".")
    if coder == "ans":
        pytest.importorskip("constriction")
    tensors, exact = expected(name)
    with torch.no_grad():
        model = loaded(path, name)
        outputs = model(tensors["inputs"])
    weights = {f"weight/{key}": one.weight for key, one in model.named_modules() if isinstance(one, CodedLayer)}
    assert set(weights) == set(tensors) - {"inputs", "outputs"}
    for key, weight in weights.items():
        assert weight.dtype == tensors[key].dtype
        assert torch.equal(weight, tensors[key]), key
    assert outputs.dtype == tensors["outputs"].dtype
    if exact:
        assert torch.equal(outputs, tensors["outputs"])
    else:  # sums of thirds depend on the order in which a machine adds
        torch.testing.assert_close(outputs, tensors["outputs"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_a_file_of_this_format_is_still_written_as_it_was(name: str) -> None:
    older, newer = (CurrentParts.of(data) for data in written_again(GOLDEN / f"v{FORMAT}" / f"{name}.safetensors"))
    assert newer == older  # but for the bytes of deflate, which another zlib may choose otherwise


@pytest.mark.parametrize("name", [path.stem for path in FILES if path.parent.name == "v1"])
def test_a_file_of_format_1_is_saved_as_one_of_this_format(name: str) -> None:
    older, newer = written_again(GOLDEN / "v1" / f"{name}.safetensors")
    assert len(newer) < len(older) - 500
    assert (
        CurrentParts.of(newer).blobs
        == CurrentParts.of((GOLDEN / f"v{FORMAT}" / f"{name}.safetensors").read_bytes()).blobs
    )


def written_again(path: Path) -> tuple[bytes, bytes]:
    """A golden file, and what it is written as once it is loaded."""
    return path.read_bytes(), serialized(loaded(path, path.stem), "fixed")


def test_every_format_and_feature_has_a_file() -> None:
    formats = set()
    for path in FILES:
        header = read(path)[1].header
        formats.add(header["format"])
        assert path.parent.name == f"v{header['format']}"
        assert path.stat().st_size < 4000
    assert formats == set(range(1, FORMAT_OF_CODED_NUMBERS + 1))
    plans = [layer for sample in SAMPLES.values() for layer in sample.plan.values()]
    assert any(layer.rank for layer in plans)
    assert any(layer.inputs for layer in plans)
    assert any(layer.sparsity for layer in plans)
    assert sum(expected(name)[1] for name in {path.stem.partition(".")[0] for path in FILES}) >= 7
