"""The file: round trips, and files that are not sound."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import corank
from corank.storage.artifact import read
from corank.storage.contents import ArtifactContents


def network() -> nn.Module:
    """A grouped, a transposed and a plain layer, a norm, a linear head, and a buffer that is not float."""
    torch.manual_seed(1)
    body = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(),
        nn.ConvTranspose2d(8, 6, 2, stride=2), nn.LayerNorm([6, 12, 12]), nn.Flatten(), nn.Linear(864, 3),
    )  # fmt: skip
    body.register_buffer("steps", torch.tensor([7, 8]))
    return body.eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module, Tensor]:
    path = tmp_path_factory.mktemp("artifact") / "small.safetensors"
    inputs = torch.randn(24, 2, 8, 8)
    quantized = corank.quantize(network(), inputs, bits=3, budget=0.5, search="greedy")
    corank.save(quantized, path, coder="fixed")
    return path, quantized, inputs


def test_round_trip_is_bit_identical_from_module_and_factory(saved: tuple[Path, nn.Module, Tensor]) -> None:
    path, quantized, inputs = saved
    given = network()
    for model in (given, network):
        loaded = corank.load(path, model)
        assert torch.equal(loaded(inputs), quantized(inputs))
        assert torch.equal(loaded.steps, torch.tensor([7, 8]))  # pyright: ignore
    assert type(given[0]) is nn.Conv2d  # pyright: ignore
    assert type(given[1]) is nn.BatchNorm2d  # pyright: ignore


def test_saving_what_was_loaded_gives_the_same_bytes(saved: tuple[Path, nn.Module, Tensor], tmp_path: Path) -> None:
    corank.save(corank.load(saved[0], network), tmp_path / "again", coder="fixed")
    assert (tmp_path / "again").read_bytes() == saved[0].read_bytes()


def test_few_blobs_and_three_bits_are_three_bits(saved: tuple[Path, nn.Module, Tensor]) -> None:
    run, contents = read(saved[0])
    assert len(contents.blobs) <= 5
    plain = sum(layer.weights * run.plan.layers[name].codec.bits for name, layer in run.layers.items())  # pyright: ignore
    factors = sum(
        layer.rank(run.plan.layers[name]) * layer.shape[0] * sum(layer.shape[1:]) * 8
        for name, layer in run.layers.items()
    )
    offsets = sum(
        layer.shape[0] * layer.shape[1] * run.plan.layers[name].codec.bits for name, layer in run.layers.items()
    )  # pyright: ignore
    assert 0 <= contents.blobs["codes"].numel() * 8 - (plain + factors + offsets) < 8 * 4 * len(run.layers)


def test_truncated_and_flipped_files_are_refused(saved: tuple[Path, nn.Module, Tensor], tmp_path: Path) -> None:
    data, path, draw = saved[0].read_bytes(), tmp_path / "bad.safetensors", random.Random(0)
    for length in (0, 7, 8, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(corank.ArtifactError):
            corank.load(path, network)
    for _ in range(200):
        place = draw.randrange(len(data))
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :])
        try:
            corank.load(path, network)
        except corank.ArtifactError:
            continue
        _, contents = read(path)  # a flip in the frame's own white space or metadata names nothing of ours
        assert contents.header == read(saved[0])[1].header


def forge(path: Path, source: Path, change: dict[str, object]) -> None:
    """A file of changed header whose checksum is right."""
    _, contents = read(source)
    path.write_bytes(ArtifactContents({**contents.header, **change}, contents.blobs).serialize())


@pytest.mark.parametrize(
    "change",
    [
        {"coded": [0]},
        {"coders": ["deflate"]},
        {"layers": {"0": [1, 8, 18, 0.1]}},
        {"layers": {"0": [1, 1 << 40, 18, 0.1]}},
        {"layers": {"0": ["x", 8, 18, 0.1]}},
        {"layers": {}},
        {"plan": {"format": 1, "default": {}, "layers": {}}},
        {"plan": {"format": 1, "default": {}, "layers": {"0": {"codec": {"kind": "uniform", "bits": 99}}}}},
        {"tensors": {"float16": [["no.such.tensor", [3]]]}},
        {"tensors": {"float16": [["8.bias", [-3]]]}},
        {"tensors": {"float99": []}},
        {"dtype": "object"},
        {"folded": ["nothing"]},
    ],
)
def test_forged_headers_are_refused(
    saved: tuple[Path, nn.Module, Tensor], tmp_path: Path, change: dict[str, object]
) -> None:
    path = tmp_path / "forged.safetensors"
    forge(path, saved[0], change)
    with pytest.raises(corank.ArtifactError):
        corank.load(path, network)


def test_other_models_and_other_files(saved: tuple[Path, nn.Module, Tensor], tmp_path: Path) -> None:
    with pytest.raises(corank.ArtifactError, match="does not fit"):
        corank.load(saved[0], nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(corank.ArtifactError, match="cannot be read"):
        corank.load(tmp_path / "nothing.safetensors", network)
    safetensors.torch.save_file({"weight": torch.zeros(3)}, tmp_path / "plain.safetensors")
    with pytest.raises(corank.ArtifactError, match="not a corank artifact"):
        corank.load(tmp_path / "plain.safetensors", network)
    with pytest.raises(corank.ConfigError, match="function that makes one"):
        corank.load(saved[0], "torchvision:resnet18")  # pyright: ignore


def test_an_unwritable_path_leaves_nothing(saved: tuple[Path, nn.Module, Tensor], tmp_path: Path) -> None:
    with pytest.raises(corank.OutputError, match="cannot write"):
        corank.save(saved[1], tmp_path / "no" / "folder" / "x.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(corank.OutputError, match="cannot write"):
        corank.save(saved[1], tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]
    with pytest.raises(corank.ModelError, match="not made by corank"):
        corank.save(network(), tmp_path / "x.safetensors")


def test_half_precision_models_come_back_in_half(saved: tuple[Path, nn.Module, Tensor], tmp_path: Path) -> None:
    half = corank.load(saved[0], network).to(torch.bfloat16)
    corank.save(half, tmp_path / "half.safetensors")
    with pytest.warns(corank.CorankWarning, match=r"network of torch\.bfloat16, and the one given is torch\.float32"):
        again = corank.load(tmp_path / "half.safetensors", network)
    inputs = saved[2].bfloat16()
    assert again(inputs).dtype == torch.bfloat16
    assert torch.equal(again(inputs), half(inputs))
