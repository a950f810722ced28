"""The packed header: whatever a header says comes back, in few bytes, and what lies is refused."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing.artifacts import SAMPLES, sample_model
from fuzzing.parts import CurrentParts, deflated, inflated
from torch import nn

import corank
from corank.errors import ArtifactError
from corank.models import resolve
from corank.storage import packed_header
from corank.storage.artifact import read, serialized
from corank.storage.header_dictionary import DICTIONARY
from corank.storage.packed_header import pack_header, unpack_header

GOLDEN = Path(__file__).parent.parent / "golden"


def without_format(header: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in header.items() if key != "format"}


@pytest.fixture
def header() -> dict[str, Any]:
    """Adapters in some layers, inputs rounded in some, one layer in float."""
    return without_format(CurrentParts.of(serialized(sample_model(SAMPLES["convolution"]))).long_header())


def test_the_dictionary_is_the_one_that_files_were_written_with() -> None:
    assert hashlib.sha256(DICTIONARY).hexdigest() == "cf7e35d7895308d97106749ec319393b3c415a6137697797d249cd4a948e700a"


@pytest.mark.parametrize(
    "path", sorted(GOLDEN.glob("v*/*.safetensors")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_golden_headers_come_back(path: Path) -> None:
    if ".ans." in path.name:
        pytest.importorskip("constriction")
    known = without_format(read(path)[1].header)
    assert unpack_header(pack_header(known)) == known


def test_whatever_a_plan_says_comes_back(header: dict[str, Any]) -> None:
    plans = header["plan"]["layers"]
    plans["0"] = {"rank": 3, "codec": {"kind": "rate-uniform", "rate": 2.531}, "sparsity": 0.123456789, "fit": "#"}
    plans["3"] = {"rank": 1 << 70, "codec": {"kind": "#"}, "rounder": {"kind": "##x", "levels": [0.5, 1.25, 1e-9, 7.0]}}
    header["plan"]["default"]["rank"] = 5
    header["plan"]["layers"] = {**plans, "not.coded": {"codec": None, "rank": 5}, "other": {}}
    expected = json.loads(json.dumps(header))
    expected["plan"]["layers"]["not.coded"].pop("rank")  # that of the default
    assert unpack_header(pack_header(header)) == expected


@pytest.mark.parametrize(
    "errors", [[None, 0.0, 0.5], [1e-9, 123.0, 0.00999], [None] * 3, [0.0] * 3, [-0.25, 1e-320, 1e300]]
)
def test_errors_have_three_digits(header: dict[str, Any], errors: list[float | None]) -> None:
    for layer, error in zip(header["layers"].values(), errors, strict=True):
        layer[3] = error
    told = [layer[3] for layer in unpack_header(pack_header(header))["layers"].values()]
    assert told == [error and float(f"{error:.2e}") for error in errors]


def test_an_error_of_nothing_widens_no_column(header: dict[str, Any]) -> None:
    sizes = []
    for errors in ([0.0012, 0.0034, 0.0056], [0.0012, 0.0, 0.0056], [0.0012, None, 0.0056]):
        for layer, error in zip(header["layers"].values(), errors, strict=True):
            layer[3] = error
        sizes.append(len(pack_header(header)))
    assert max(sizes) - min(sizes) <= 1


def test_names_and_tensors_of_any_kind_come_back(header: dict[str, Any]) -> None:
    names = ["a", "a.b", "b.c.d", "/x", "é"]
    header["layers"] = {name: [1, 2, 3, 0.5] for name in names}
    header["plan"]["layers"] = {name: {} for name in reversed(names)}
    header["folded"] = ["b.c.norm", "elsewhere", "a.norm", ">", ".x"]
    header["tensors"] = {
        "float16": [["a.bias", [2]], ["b.c.d.bias", [3]], ["gain", []]],
        "int64": [["a.b.steps", [2, 1]]],
    }
    header["skipped"] = {"z": "no reason"}
    header.pop("activations")
    assert unpack_header(pack_header(header)) == header


def test_a_long_header_of_one_word_is_not_refused(header: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_header, "_SMALL_BYTES", 1000)
    header["skipped"] = {"name": "x" * 200_000}
    assert unpack_header(pack_header(header)) == header


def altered(header: dict[str, Any], **change: Any) -> bytes:
    """The header with entries of its text changed; None takes one out."""
    text, columns = inflated(pack_header(header))
    entries = {key: value for key, value in {**json.loads(text), **change}.items() if value is not None}
    return deflated(json.dumps(entries).encode()) + columns


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"layers": None}, "it has no 'layers'"),
    ({"shapes": None}, "it has no 'shapes'"),
    ({"format": 3}, "a format of its own"),
    ({"layers": "conv"}, "layers is 'conv', not a list"),
    ({"layers": ["/0", 3, "/6"]}, "layers is 3, not a text"),
    ({"layers": ["/0", "/3", "/0"]}, "names one twice"),
    ({"shapes": [1] * 8}, "three whole numbers for each of 3 layers"),
    ({"shapes": [True] * 9}, "three whole numbers for each of 3 layers"),
    ({"plan": []}, "plan is a list"),
    ({"plan": {"layers": [{}, {}, {}]}}, "not an object with a default"),
    ({"plan": {"default": {}, "layers": [{}, {}]}}, "one object for each of 3 names"),
    ({"plan": {"default": {}, "layers": [{}, {}, []]}}, "one object for each of 3 names"),
    ({"plan": {"default": {}, "layers": [{}, {}, {}], "names": ["/a", "/a", "/b"]}}, "one object for each of 3 names"),
    ({"plan": {"default": {}, "layers": [{}, {}, {"codec": "#"}]}}, "not sound"),
    ({"folded": [""] * 4}, "stands beside no other"),
    ({"tensors": []}, "tensors is a list"),
    ({"tensors": {"float16": ["/gain"]}}, "has no shape, and no layer beside it"),
    ({"tensors": {"float16": [[]]}}, "a tensor's name is a list of 0"),
    ({"tensors": {"float16": [[3, 3]]}}, "a tensor's name is 3"),
    ({"coded": [1, -1]}, "not a list of coders' numbers"),
    ({"coded": [True]}, "not a list of coders' numbers"),
    ({"coded": [1] * 4}, "not sound"),
]


@pytest.mark.parametrize(
    ("change", "said"), CHANGES, ids=[f"{min(change)}-{n}" for n, (change, _) in enumerate(CHANGES)]
)
def test_entries_that_lie_are_refused(header: dict[str, Any], change: dict[str, Any], said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        unpack_header(altered(header, **change))


def test_streams_that_are_none_are_refused(header: dict[str, Any]) -> None:
    packed = pack_header(header)
    for block in (b"", packed[:20], b"\xff" * 40, deflated(b"\xff\xfe"), deflated(b"[]"), packed + b"\0"):
        with pytest.raises(ArtifactError, match="not sound"):
            unpack_header(block)
    with pytest.raises(ArtifactError, match="do not end, or are more than 1048576 bytes"):
        unpack_header(deflated(b" " * (1 << 21)))


def test_noise_is_refused_or_a_header(header: dict[str, Any]) -> None:
    draw, packed = random.Random(1), pack_header(header)
    for _ in range(500):
        place = draw.randrange(len(packed))
        block = packed[:place] + bytes([packed[place] ^ (1 << draw.randrange(8))]) + packed[place + 1 :]
        try:
            unpack_header(block)
        except ArtifactError:
            continue


def depthwise() -> nn.Module:
    """About 50,000 parameters in 27 convolutions and a linear layer, each convolution with a norm behind it."""
    torch.manual_seed(0)

    def part(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> nn.Module:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU6())

    widths = [16, 16, 24, 24, 32, 32, 48, 48, 64, 64, 80, 80, 96, 96]
    layers = [part(3, 16, 3, 2, 1)]
    for before, after in itertools.pairwise(widths):
        layers += [part(before, before, 3, 2 if after > 2 * before else 1, before), part(before, after, 1, 1, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10)).eval()


@pytest.mark.parametrize(
    "options",
    [{"rate": 2, "preset": "nearest"}, {"bits": 3, "budget": 0.25, "activations": 8, "search": "greedy"}],
    ids=str,
)
def test_a_small_depthwise_network_has_a_header_of_a_few_hundred_bytes(options: dict[str, Any], tmp_path: Path) -> None:
    network, images = depthwise(), torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert 45_000 < sum(parameter.numel() for parameter in network.parameters()) < 55_000
    small = corank.quantize(network, images, samples=32, **options)
    assert len(small.corank_run.layers) == 28  # pyright: ignore
    size = corank.save(small, tmp_path / "small.safetensors")
    parts = corank.inspect(tmp_path / "small.safetensors")["stored_parts"]
    assert parts["header"] <= 500
    assert size == sum(parts.values())


def test_resnet_20_has_a_header_of_a_few_hundred_bytes(tmp_path: Path) -> None:
    network = resolve(f"{GOLDEN.parent.parent / 'bench' / 'models.py'}:cifar_resnet20").model
    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    corank.save(corank.quantize(network, images, rate=2, preset="nearest", samples=16), tmp_path / "small.safetensors")
    assert corank.inspect(tmp_path / "small.safetensors")["stored_parts"]["header"] <= 400
