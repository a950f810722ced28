"""The file of a task's adapter: the same network again, other bases refused, hostile bytes refused early."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import corank
from corank.errors import ArtifactError, ConfigError, ModelError, OutputError
from corank.storage import adapter_file
from corank.storage.adapter_file import adapter_bytes, is_adapter, load_adapter, read_adapter, save_adapter
from corank.storage.artifact_file import ADAPTER_TENSOR, framed
from corank.storage.packed_header import deflated
from corank.storage.task_adapter import base_identity

IMAGES = torch.randn(32, 1, 6, 6, generator=torch.Generator().manual_seed(2))
LABELS = torch.arange(32) % 3


def network(classes: int = 3) -> nn.Sequential:
    torch.manual_seed(4)
    body = (nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten())
    return nn.Sequential(*body, nn.Linear(24, classes)).eval()


def coded(**how) -> nn.Module:
    return corank.quantize(network(), IMAGES, device="cpu", **({"bits": 2, "budget": 0.0} | how))


def adapted(base: nn.Module, labels: torch.Tensor, seed: int = 0, rank: int = 2) -> nn.Module:
    return corank.adapt(base, (IMAGES, labels), rank, iterations=4, batch_size=16, device="cpu", seed=seed)


@pytest.fixture(scope="module")
def base() -> nn.Module:
    return coded()


@pytest.fixture(scope="module")
def tasks(base: nn.Module) -> list[nn.Module]:
    return [adapted(base, LABELS), adapted(base, LABELS % 2, seed=1)]


def test_saved_and_loaded_it_is_the_same(base: nn.Module, tasks: list[nn.Module], tmp_path: Path) -> None:
    corank.save(base, tmp_path / "base.safetensors", coder="fixed")
    for number, task in enumerate(tasks):
        path = tmp_path / f"{number}.safetensors"
        size = save_adapter(task, path)
        assert size == path.stat().st_size == len(adapter_bytes(task.corank_adapter)) and is_adapter(path)
        again = corank.load(tmp_path / "base.safetensors", network)
        for one in (base, again):
            found = load_adapter(one, path)
            assert torch.equal(found(IMAGES), task(IMAGES)) and not found.training
        assert adapter_bytes(found.corank_adapter) == path.read_bytes()
        assert read_adapter(path).about() == task.corank_adapter.about()


def test_swapping_leaves_no_trace(base: nn.Module, tasks: list[nn.Module], tmp_path: Path) -> None:
    before = base(IMAGES)
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for task, path in zip(tasks, paths, strict=True):
        save_adapter(task, path)
    for place in (0, 1, 0):
        assert torch.equal(load_adapter(base, paths[place])(IMAGES), tasks[place](IMAGES))
        assert torch.equal(base(IMAGES), before)
    first = load_adapter(base, paths[0])
    first.half().float().get_parameter("0.bias").data.fill_(9)
    assert torch.equal(base(IMAGES), before) and torch.equal(load_adapter(base, paths[0])(IMAGES), tasks[0](IMAGES))


def test_a_base_is_told_from_others_by_its_codes(base: nn.Module, tasks: list[nn.Module], tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_adapter(tasks[0], path)
    for other in (coded(bits=3), tasks[0]):
        with pytest.raises(ArtifactError, match=r"a\.safetensors does not fit this Sequential: the adapter belongs to"):
            load_adapter(other, path)
    moved = copy.deepcopy(base)
    codes = moved.get_submodule("2").get_buffer("codes")
    codes[0] ^= 1
    assert base_identity(moved) != base_identity(base)
    half = copy.deepcopy(base).half()
    assert base_identity(half) == base_identity(base)
    found = load_adapter(half, path)(IMAGES.half())
    assert found.dtype == torch.float16 and torch.allclose(found.float(), tasks[0](IMAGES), atol=2e-2)


def test_the_size_is_what_it_holds(tasks: list[nn.Module]) -> None:
    """One byte for each code, two for each scale and vector, and what describes them."""
    for task in tasks:
        held = task.corank_adapter
        factors = sum(side.codes.numel() + 2 * len(side.codes) for one in held.layers.values()
                      for side in (one.left, one.right))  # fmt: skip
        head = 0 if held.head is None else held.head.weight.codes.numel() + 4 * held.head.classes
        numbers = factors + 2 * sum(len(one) for one in held.vectors.values()) + head
        assert 0 < len(adapter_bytes(held)) - numbers < 420


def test_what_is_no_adapter_is_refused(base: nn.Module, tasks: list[nn.Module], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no task's adapter"):
        save_adapter(base, tmp_path / "x.safetensors")
    with pytest.raises(ConfigError, match="a path comes second"):
        save_adapter(tasks[0], 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(OutputError):
        save_adapter(tasks[0], tmp_path / "none" / "x.safetensors")
    corank.save(base, tmp_path / "base.safetensors")
    save_adapter(tasks[0], tmp_path / "a.safetensors")
    assert not is_adapter(tmp_path / "base.safetensors") and not is_adapter(tmp_path / "missing.safetensors")
    with pytest.raises(ArtifactError, match="no task's adapter"):
        load_adapter(base, tmp_path / "base.safetensors")
    with pytest.raises(ArtifactError, match="a task's adapter, no network"):
        corank.load(tmp_path / "a.safetensors", network)
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_adapter(tmp_path / "missing.safetensors")


def test_every_changed_or_missing_byte_is_refused(tasks: list[nn.Module], tmp_path: Path) -> None:
    data, path = adapter_bytes(tasks[1].corank_adapter), tmp_path / "a.safetensors"
    draws = torch.Generator().manual_seed(0)
    begin = int.from_bytes(data[:8], "little") + 8
    for place in torch.randint(begin, len(data), (40,), generator=draws).tolist():
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(ArtifactError):
            read_adapter(path)
        path.write_bytes(data[:place])
        with pytest.raises(ArtifactError):
            read_adapter(path)


def forged(header: dict, numbers: bytes = b"", end: int = 1) -> bytes:
    """A file of that header, its hash sound."""
    block = deflated(json.dumps(header).encode())
    content = numbers + block + len(block).to_bytes(4, "little") + bytes([end])
    return framed(ADAPTER_TENSOR, content + hashlib.sha256(content).digest())


SOUND = {"base": "0" * 32, "steps": 1, "layers": [], "sizes": [], "vectors": [], "head": None}
SIZES = [[1], [8], [1], [2], [3]]


@pytest.mark.parametrize(
    ("change", "numbers", "said"),
    [
        ({"base": "z" * 32}, b"", "no half of a SHA-256"),
        ({"steps": -1}, b"", "a whole number from 0"),
        ({"steps": True}, b"", "a whole number from 0"),
        ({"more": 1}, b"", "its fields are not"),
        ({"layers": ["/a"], "sizes": SIZES[:4]}, b"", "sizes are not five"),
        ({"layers": ["/a", ""], "sizes": [[one[0]] * 2 for one in SIZES]}, bytes(100), "names one twice"),
        ({"layers": ["/a"], "sizes": [[1], [9], [1], [2], [3]]}, b"", "2 to 8 bits"),
        ({"layers": ["/a"], "sizes": [[1 << 30], [8], [1 << 30], [1 << 30], [3]]}, b"", "bytes of numbers"),
        ({"layers": ["/a"], "sizes": [[1 << 40], [8], [1], [2], [3]]}, b"", "a whole number from 1"),
        ({"vectors": [["/b", 4]]}, bytes(7), "needs 8 bytes of numbers, and there are 7"),
        ({"vectors": [["/b", 1]]}, b"\x00\x7c", "not finite"),
        ({"vectors": ["/b"]}, b"", "not names and lengths"),
        ({"layers": ["/a"], "sizes": SIZES}, bytes(9), "not above zero"),
        ({"head": ["h", 2, 3]}, b"", "head is not"),
        ({"head": ["h", 1, 1, False]}, b"\x00\x3c", "needs 3 bytes"),
    ],
)
def test_headers_that_cannot_be(change: dict, numbers: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(forged({**SOUND, **change}, numbers))
    with pytest.raises(ArtifactError, match=said):
        read_adapter(path)


def test_a_sound_header_is_read_and_a_later_format_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(forged(SOUND))
    assert read_adapter(path).about()["iterations"] == 1
    path.write_bytes(forged(SOUND, end=2))
    with pytest.raises(ArtifactError, match="format 2; this version reads format 1"):
        read_adapter(path)


def test_an_adapter_of_other_shapes_is_refused(base: nn.Module, tmp_path: Path) -> None:
    own, path = base_identity(base), tmp_path / "a.safetensors"
    one = "003c"  # fp16 of 1
    cases = (
        ({"layers": ["/0"], "sizes": [[1], [8], [1], [5], [9]]}, bytes.fromhex(one * 2) + bytes(14), "for a layer of"),
        ({"layers": ["/9"], "sizes": SIZES}, bytes.fromhex(one * 2) + bytes(5), "no layer '9' that takes an adapter"),
        ({"vectors": [["/0.bias", 5]]}, bytes(10), "no vector '0.bias' of 5"),
        ({"vectors": [["/0.weight", 5]]}, bytes(10), "no vector '0.weight'"),
        ({"head": ["5", 1, 7, False]}, bytes.fromhex(one) + bytes(7), "no last layer '5' of 7 inputs"),
        ({"head": ["0", 1, 9, False]}, bytes.fromhex(one) + bytes(9), "no last layer '0'"),
        ({"layers": ["/5"], "sizes": [[9], [8], [1], [3], [24]]}, bytes.fromhex(one * 18) + bytes(243), "ranks to 3"),
    )
    for change, numbers, said in cases:
        path.write_bytes(forged({**SOUND, "base": own, **change}, numbers))
        with pytest.raises(ArtifactError, match=said):
            load_adapter(base, path)


def test_public_names() -> None:
    assert corank.save_adapter is adapter_file.save_adapter and corank.load_adapter is adapter_file.load_adapter
