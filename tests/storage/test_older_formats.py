"""Files of formats 1 and 2: read as before, and refused for the same reasons."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fuzzing.parts import OlderParts
from torch import Tensor

from corank.errors import ArtifactError
from corank.storage.artifact import read, read_coded
from corank.storage.older_formats import digest, older_header

GOLDEN = Path(__file__).parent.parent / "golden"


def with_header(path: Path, change: Callable[[dict[str, object]], None]) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and blobs of a file whose header is changed and signed."""
    parts = OlderParts.of(path.read_bytes())
    header = json.loads(parts.header)
    change(header)
    blobs = {"codes": torch.zeros(3, dtype=torch.uint8)}
    text = json.dumps(header)
    return {"corank": text, "sha256": digest(text, blobs)}, blobs


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("v[12]/*")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_golden_files_are_of_their_format(path: Path) -> None:
    if ".ans." in path.name:
        pytest.importorskip("constriction")
    run, contents, streams = read_coded(path)
    assert contents.header["format"] == int(path.parent.name[1:])
    assert {stream.layer for stream in streams} == set(run.layers)
    assert ({stream.coder for stream in streams} == {"fixed"}) == (path.parent.name == "v1")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 5}, "it is of format 5; this version reads formats 1 to 4; upgrade corank"),
        ({"format": -1}, "upgrade corank"),
        ({"format": True}, "it has no format"),
        ({"format": 1.0}, "it has no format"),
        ({"format": "1"}, "it has no format"),
        ({"coded": [0], "coders": []}, "an index of coded runs belongs to format 2"),
        ({"format": 2}, "an index of coded runs belongs to format 2"),
        ({"format": 2, "coded": []}, "an index of coded runs belongs to format 2"),
    ],
)
def test_headers_of_other_formats(change: dict[str, object], said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        older_header(*with_header(GOLDEN / "v1" / "sparse.safetensors", lambda header: header.update(change)))


def test_blobs_that_are_not_flat_and_hashes_that_are_not_right() -> None:
    metadata, blobs = with_header(GOLDEN / "v1" / "sparse.safetensors", lambda header: None)
    assert older_header(metadata, blobs)["format"] == 1
    with pytest.raises(ArtifactError, match="SHA-256 does not match"):
        older_header(metadata, {"codes": torch.ones(3, dtype=torch.uint8)})
    with pytest.raises(ArtifactError, match="SHA-256 does not match"):
        older_header({"corank": metadata["corank"]}, blobs)
    for bad in (torch.zeros(1, 3, dtype=torch.uint8), torch.zeros(3, dtype=torch.complex64)):
        with pytest.raises(ArtifactError, match="blobs are flat lists"):
            older_header(metadata, {"codes": bad})


def test_a_damaged_older_file_is_refused(tmp_path: Path) -> None:
    data = bytearray((GOLDEN / "v2" / "sparse.deflate.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(ArtifactError, match="SHA-256"):
        read(tmp_path / "file")
