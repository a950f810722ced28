"""The bytes of a file: one tensor, that any safetensors reader opens, with everything in its place."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pytest
import safetensors.torch
import torch
from fuzzing.artifacts import SAMPLES, sample_model
from fuzzing.parts import CurrentParts, framed, opened, signed
from safetensors import safe_open
from torch import Tensor

from corank.errors import ArtifactError
from corank.storage.artifact import read, serialized
from corank.storage.artifact_file import file_bytes, header_in, numbers_in, written
from corank.storage.contents import ArtifactContents, contents_of
from corank.storage.header import read_run
from corank.storage.model_record import ModelRecord, run_of


@pytest.fixture(scope="module", params=sorted(SAMPLES))
def sample(request: pytest.FixtureRequest) -> tuple[ModelRecord, ArtifactContents]:
    model = sample_model(SAMPLES[request.param])
    return run_of(model), contents_of(model, run_of(model))


@pytest.fixture
def data() -> bytes:
    return serialized(sample_model(SAMPLES["codecs"]))


def test_what_is_written_is_read(sample: tuple[ModelRecord, ArtifactContents]) -> None:
    run, contents = sample
    data = written(contents.header, contents.blobs)
    assert data == written(contents.header, contents.blobs) == contents.serialize()
    number_bytes = sum(blob.numel() * blob.element_size() for blob in contents.blobs.values())
    assert len(data) == file_bytes(contents.header, number_bytes) == contents.size_bytes
    header, numbers = header_in(safetensors.torch.load(data)["corank"])
    assert header == contents.header
    assert header["format"] == 3
    blobs = numbers_in(numbers, header, run)
    assert set(blobs) == set(contents.blobs)
    assert all(torch.equal(blob, contents.blobs[name]) for name, blob in blobs.items())


def test_a_file_is_one_tensor_that_ends_with_its_hash(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    with safe_open(str(tmp_path / "file"), "np") as file:
        assert list(file.keys()) == ["corank"]
        assert file.metadata() is None
        tensor = file.get_tensor("corank")
    assert tensor.dtype == "uint8" and tensor.ndim == 1
    assert data[-32:] == hashlib.sha256(tensor.tobytes()[:-32]).digest()
    assert (len(data) - len(tensor)) % 8 == 0
    assert len(data) - len(tensor) <= 80


def test_wide_numbers_stand_first_wherever_the_frame_ends(data: bytes, tmp_path: Path) -> None:
    """float32 and int64 buffers are there; another writer's frame may be of any length."""
    assert list(CurrentParts.of(data).blobs) == ["int64", "float32", "float16", "scales", "codes"]
    frame, body = opened(data)
    (tmp_path / "sound").write_bytes(framed(frame, body))
    expected = read(tmp_path / "sound")[1].blobs
    text = framed(frame, b"")[8:].rstrip()
    for spaces in range(9):
        moved = text + b" " * spaces
        (tmp_path / "moved").write_bytes(len(moved).to_bytes(8, "little") + moved + body)
        found = read(tmp_path / "moved")[1].blobs
        assert all(torch.equal(found[name], blob) for name, blob in expected.items())


def numbers_of(data: bytes) -> tuple[Tensor, dict[str, object], ModelRecord]:
    header, numbers = header_in(safetensors.torch.load(data)["corank"])
    return numbers, header, read_run(header)


def test_fewer_numbers_than_the_header_needs(data: bytes) -> None:
    numbers, header, run = numbers_of(data)
    parts = CurrentParts.of(data)
    least = sum(len(blob) for name, blob in parts.blobs.items() if name != "codes")
    assert len(numbers_in(numbers[:least], header, run)["codes"]) == 0
    with pytest.raises(ArtifactError, match="the header needs 1 bytes more than there are"):
        numbers_in(numbers[: least - 1], header, run)


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.zeros(36, dtype=torch.uint8), "not a row of 37 bytes or more"),
        (torch.zeros(2, 40, dtype=torch.uint8), "not a row of 37 bytes or more"),
        (torch.zeros(80), "not a row of 37 bytes or more"),
        (torch.zeros((), dtype=torch.uint8), "not a row of 37 bytes or more"),
        (torch.zeros(40, dtype=torch.uint8), "of format 0; this version reads formats 1 to 4; upgrade corank"),
        (torch.full((40,), 3, dtype=torch.uint8), "SHA-256 does not match"),
    ],
)
def test_tensors_that_are_no_artifact(tensor: Tensor, said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        header_in(tensor)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ((38).to_bytes(4, "little") + b"\3", "longer than the file"),
        (b"\xff\xff\xff\xff\3", "longer than the file"),
        (b"\0\0\0\0\3", "not sound"),
        (b"\0\0\0\0\5", "it is of format 5"),
    ],
)
def test_signed_files_whose_end_lies(end: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(signed(bytes(37) + end))
    with pytest.raises(ArtifactError, match=said):
        read(tmp_path / "file")


def test_every_flipped_bit_of_the_tensor_is_found(data: bytes, tmp_path: Path) -> None:
    begin = len(data) - math.prod(opened(data)[0]["corank"]["shape"])
    for place in range(begin, len(data), 7):
        (tmp_path / "file").write_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])
        with pytest.raises(ArtifactError, match=r"SHA-256|of format 19"):
            read(tmp_path / "file")
