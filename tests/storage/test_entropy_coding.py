"""Coded artifacts: exact, never larger than fixed ones, bounded, and refused where their index lies."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import torch
from fuzzing.parts import CurrentParts
from torch import Tensor, nn

import corank
from corank.codecs import Uniform
from corank.errors import ArtifactError, ConfigError
from corank.plan import LayerPlan
from corank.storage.artifact import read_coded
from corank.storage.coders import CODERS
from corank.storage.contents import ArtifactContents, contents_of
from corank.storage.entropy_coding import decode_contents, encode_contents
from corank.storage.model_record import ModelRecord, run_of


def network() -> nn.Module:
    torch.manual_seed(2)
    body = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 24, 3, groups=2), nn.ReLU(),
        nn.Conv2d(24, 24, 3), nn.ReLU(), nn.Flatten(), nn.Linear(384, 40), nn.ReLU(), nn.Linear(40, 5),
    )  # fmt: skip
    return body.eval()


@pytest.fixture(scope="module")
def inputs() -> Tensor:
    return torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def small(inputs: Tensor) -> nn.Module:
    """Two and more bits, offsets whole and half, groups of columns, one scale a tensor, no offset, adapters."""
    layers = {
        "2": LayerPlan(Uniform(4, group=20)),
        "4": LayerPlan(Uniform(2, half=True), rank=2),
        "7": LayerPlan(Uniform(3, group=-1), rank=4, adapter_bits=4, inputs=8),
        "9": LayerPlan(Uniform(4, symmetric=True)),
    }
    return corank.quantize(network(), inputs, bits=4, preset="nearest", layers=layers)


@pytest.fixture(scope="module")
def fixed(small: nn.Module) -> tuple[ModelRecord, ArtifactContents]:
    run = run_of(small)
    return run, contents_of(small, run)


@pytest.mark.parametrize("coder", ["auto", *sorted(set(CODERS) - {"fixed"})])
def test_exact_and_smaller(fixed: tuple[ModelRecord, ArtifactContents], coder: str) -> None:
    if coder == "ans":
        pytest.importorskip("constriction")
    run, contents = fixed
    coded, runs = encode_contents(run, contents, coder)
    assert sum(part.size_bytes for part in runs) == coded.blobs["codes"].numel()
    assert sum(part.fixed_bytes for part in runs) == contents.blobs["codes"].numel()
    again, found = decode_contents(run, coded)
    assert found == runs
    assert again.header == contents.header
    assert set(again.blobs) == set(contents.blobs)
    for name, blob in contents.blobs.items():
        assert torch.equal(again.blobs[name], blob)
    assert len(coded.serialize()) <= len(contents.serialize())
    if coder != "sham":  # nothing is sparse here
        assert coded.header["coded"]
        assert len(coded.serialize()) < len(contents.serialize())
    else:
        assert coded is contents


def test_fixed_leaves_everything_as_it_is(fixed: tuple[ModelRecord, ArtifactContents]) -> None:
    run, contents = fixed
    coded, runs = encode_contents(run, contents, "fixed")
    assert coded is contents
    assert {part.coder for part in runs} == {"fixed"}
    again, found = decode_contents(run, coded)
    assert again is contents
    assert found == runs
    assert not {"coders", "coded"} & set(contents.header)


def test_auto_keeps_the_smallest_of_each_run(fixed: tuple[ModelRecord, ArtifactContents]) -> None:
    run, contents = fixed
    auto = encode_contents(run, contents, "auto")[1]
    deflated = encode_contents(run, contents, "deflate")[1]
    carried = encode_contents(run, contents, "carried")[1]
    assert {part.coder for part in auto} > {"carried", "fixed"}
    for best, other, one in zip(auto, deflated, carried, strict=True):
        # What each run is carried from differs where one of them was left to another coder.
        assert best.size_bytes <= min(other.size_bytes, best.fixed_bytes)
        assert best.coder != "carried" or best.size_bytes < 1.05 * one.size_bytes


def test_rows_that_differ_by_their_offset_alone_are_coded_alike(inputs: Tensor) -> None:
    """The same bell of codes around offsets that jump from row to row."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(192, 64))
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(64, 192) * 0.1)
        model[0].weight[::2, 0] = 1.0  # high and low outliers move the offset of a min-max range
        model[0].weight[1::2, 0] = -1.0
    plan = {"0": LayerPlan(Uniform(4))}
    coded = corank.quantize(model, inputs.reshape(16, -1), preset="nearest", layers=plan)
    run = run_of(coded)
    contents = contents_of(coded, run)
    codes = coded[0].code().weight  # pyright: ignore
    zeros = codes.codebook.offset.to(torch.uint8)
    assert len(zeros.unique()) > 1
    relative = (codes.codes - zeros) & 15
    part = encode_contents(run, contents, "deflate")[1][0]
    assert part.slot == "codes"
    assert part.size_bytes == len(CODERS["deflate"]().encode(relative, 16))
    assert part.size_bytes < 0.9 * len(CODERS["deflate"]().encode(codes.codes, 16))


def test_no_run_is_coded_so_far_that_reading_it_is_a_risk(inputs: Tensor) -> None:
    model = nn.Sequential(nn.Linear(192, 3000))
    with torch.no_grad():
        model[0].weight.fill_(0.5)
    coded = corank.quantize(model, inputs.reshape(16, -1), preset="nearest", layers={"0": LayerPlan(Uniform(8))})
    run = run_of(coded)
    contents = contents_of(coded, run)
    for coder in ("auto", "ham", "huffman"):
        for part in encode_contents(run, contents, coder)[1]:
            assert part.size_bytes * 1024 >= part.fixed_bytes


def forged(source: ArtifactContents, **change: object) -> ArtifactContents:
    return ArtifactContents({**source.header, **change}, source.blobs)


def test_an_index_that_lies_is_refused(fixed: tuple[ModelRecord, ArtifactContents]) -> None:
    run, contents = fixed
    coded, _ = encode_contents(run, contents, "deflate")
    index = coded.header["coded"]
    first = next(place for place, entry in enumerate(index) if entry)

    def with_entry(entry: object) -> list[object]:
        return [*index[:first], entry, *index[first + 1 :]]

    size = index[first][1]
    entries = [0, 7, None, "x", [0], [0, "1"], [0, -size], [0, 0], [0, size + 1], [1, size], [-1, size], [True, size]]
    entries += [[0, 1 << 60], [0, size, 0], [0, float(size)]]
    changes = [{"coded": with_entry(entry)} for entry in entries]
    changes += [{"coded": index[:-1]}, {"coded": [*index, 0]}, {"coded": {}}, {"coders": []}, {"coders": "deflate"}]
    changes += [{"coders": ["lzma"]}, {"coders": [1]}, {"coders": ["huffman"]}]
    for change in changes:
        with pytest.raises(ArtifactError):
            decode_contents(run, forged(coded, **change))
    with pytest.raises(ArtifactError, match="no coder of this version"):
        decode_contents(run, forged(coded, coders=["lzma"]))
    for blob in (coded.blobs["codes"][:-1], coded.blobs["codes"].float(), coded.blobs["codes"][None]):
        with pytest.raises(ArtifactError):
            decode_contents(run, ArtifactContents(coded.header, {**coded.blobs, "codes": blob}))


def test_a_great_expansion_is_refused_before_memory_is_taken(fixed: tuple[ModelRecord, ArtifactContents]) -> None:
    run, contents = fixed
    coded, _ = encode_contents(run, contents, "deflate")
    name = next(iter(run.layers))
    plan = run.plan.layers[name]
    huge = ModelRecord(run.plan.__class__({name: plan}), {name: run.layers[name].__class__((1, 1 << 30, 1 << 30), 0.1)})
    slots = len([slot for slot in huge.layers[name].slots(plan).values() if not slot.scale])
    header = {**coded.header, "coders": ["deflate"], "coded": [[0, 10]] * slots}
    with pytest.raises(ArtifactError, match="1024-fold"):
        decode_contents(huge, ArtifactContents(header, {"codes": torch.zeros(10 * slots, dtype=torch.uint8)}))


def test_damaged_codes_are_refused_by_their_coder(fixed: tuple[ModelRecord, ArtifactContents]) -> None:
    run, contents = fixed
    coded, runs = encode_contents(run, contents, "deflate")
    blob = coded.blobs["codes"].clone()
    blob[:] = 255
    name = next(part.layer for part in runs if part.coder != "fixed")
    with pytest.raises(ArtifactError, match=f"of layer {name!r}: a deflate stream"):
        decode_contents(run, ArtifactContents(coded.header, {**coded.blobs, "codes": blob}))


def test_unknown_coders_are_named_with_the_known(fixed: tuple[ModelRecord, ArtifactContents]) -> None:
    with pytest.raises(ConfigError, match="no coder is called 'zip'; known: adaptive, ans, auto, carried, deflate"):
        encode_contents(*fixed, "zip")


@pytest.fixture(params=["auto", "huffman", "ham", "ans", "rans", "adaptive"])
def saved(request: pytest.FixtureRequest, small: nn.Module, tmp_path: Path) -> Path:
    if request.param == "ans":
        pytest.importorskip("constriction")
    corank.save(small, tmp_path / "coded.safetensors", coder=request.param)
    return tmp_path / "coded.safetensors"


def test_files_load_bit_identically_and_are_smaller(
    saved: Path, small: nn.Module, inputs: Tensor, tmp_path: Path
) -> None:
    loaded = corank.load(saved, network)
    assert torch.equal(loaded(inputs), small(inputs))
    for (name, tensor), (other, expected) in zip(loaded.state_dict().items(), small.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(tensor, expected)
    size_bytes = corank.save(loaded, tmp_path / "fixed.safetensors", coder="fixed")
    assert saved.stat().st_size < size_bytes
    assert {part.coder for part in read_coded(tmp_path / "fixed.safetensors")[2]} == {"fixed"}
    again = corank.load(tmp_path / "fixed.safetensors", network)
    assert torch.equal(again(inputs), small(inputs))


def test_damaged_files_are_refused(saved: Path, tmp_path: Path) -> None:
    data, path, draw = saved.read_bytes(), tmp_path / "bad.safetensors", random.Random(0)
    header = read_coded(saved)[1].header
    for length in (0, 8, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ArtifactError):
            corank.load(path, network)
    for _ in range(60):
        place = draw.randrange(len(data))
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :])
        try:
            corank.load(path, network)
        except ArtifactError:
            continue
        assert read_coded(path)[1].header == header  # a flip in the frame's own white space


def test_codes_changed_under_a_right_checksum_are_refused_or_are_codes(saved: Path, tmp_path: Path) -> None:
    parts, draw, path = CurrentParts.of(saved.read_bytes()), random.Random(5), tmp_path / "forged.safetensors"
    codes = parts.blob("codes")
    for _ in range(40):
        place = draw.randrange(len(codes))
        changed = codes[place] ^ (1 << draw.randrange(8))
        parts.replace("codes", codes[:place] + bytes([changed]) + codes[place + 1 :], 1)
        path.write_bytes(parts.join())
        try:
            corank.load(path, network)
        except ArtifactError as error:
            assert str(path) in str(error)


def test_a_missing_package_is_named(small: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("constriction")
    corank.save(small, tmp_path / "ans.safetensors", coder="ans")
    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(ConfigError, match=r"ans.safetensors: .*pip install 'corank\[entropy\]'"):
        corank.load(tmp_path / "ans.safetensors", network)
    with pytest.raises(ConfigError, match="entropy"):
        corank.save(small, tmp_path / "other.safetensors", coder="ans")
    with pytest.raises(ConfigError, match="known: adaptive, ans, auto"):
        corank.save(small, tmp_path / "other.safetensors", coder="gzip")
    assert not (tmp_path / "other.safetensors").exists()


def test_a_pruned_layer_takes_a_few_percent(tmp_path: Path) -> None:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 3))
    plan = LayerPlan(Uniform(4, range="mse"), sparsity=0.97)
    pruned = corank.quantize(model, torch.randn(8, 512), preset="nearest", layers={"0": plan})
    size_bytes = corank.save(pruned, tmp_path / "pruned.safetensors", coder="auto")
    assert size_bytes < 0.03 * 4 * 512 * 515
    assert torch.equal(corank.load(tmp_path / "pruned.safetensors", model)[0].weight, pruned[0].weight)  # pyright: ignore
