"""Damaged data and weights files of every kind: each is read, or refused with our error."""

from __future__ import annotations

import io
import random
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzzing.mutations import DAMAGES
from PIL import Image
from torch import nn

from corank.data.archive import load_archive
from corank.data.images import ImageSet
from corank.data.npz import load_npz
from corank.data.tokens import Tokenization, load_tokens
from corank.errors import CorankError, DataError
from corank.models.weights import load_weights


def npz(compressed: bool, **arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, **arrays)  # pyright: ignore
    return stream.getvalue()


def npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def archive(compression: int) -> bytes:
    stream, picture = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.arange(75, dtype=np.uint8).reshape(5, 5, 3)).save(picture, "PNG")
    with zipfile.ZipFile(stream, "w", compression) as target:
        for name in ("a/0.png", "a/1.png", "b/0.png"):
            target.writestr(name, picture.getvalue())
    return stream.getvalue()


def pytorch(zipped: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(nn.Linear(3, 2).state_dict(), stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def decoded(images: ImageSet) -> None:
    for _ in images.batches(2):
        pass


def tokens(path: Path) -> object:
    return load_tokens(str(path), Tokenization())


PIXELS, IDS = np.arange(75, dtype=np.uint8).reshape(1, 5, 5, 3), np.arange(64).reshape(4, 16)
READERS: dict[str, tuple[list[bytes], str, Callable[[Path], object]]] = {
    "npz": (
        [npz(packed, x=PIXELS, y=np.array([1])) for packed in (False, True)], "f.npz",
        lambda path: decoded(load_npz(path, labelled=True)),
    ),
    "zip": (
        [archive(kind) for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)],
        "f.zip", lambda path: decoded(load_archive(path)),
    ),
    "token arrays": ([npz(True, tokens=IDS)], "t.npz", tokens),
    "npy": ([npy(IDS)], "t.npy", tokens),
    "pt": ([pytorch(True), pytorch(False)], "w.pt", lambda path: load_weights(nn.Linear(3, 2), path)),
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(READERS))
def test_damaged_files_are_refused_or_read(kind: str, tmp_path: Path) -> None:
    files, name, read = READERS[kind]
    path, refused = tmp_path / name, 0
    for data in files:
        path.write_bytes(data)
        read(path)
    for number in range(250):
        draw = random.Random(f"{kind}:{number}")
        data = draw.choice(files)
        for _ in range(draw.choice((1, 1, 3))):
            data = DAMAGES[draw.choice(sorted(DAMAGES))](data, draw, files)
        path.write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # NumPy's, of a header in an old style
                read(path)
        except CorankError:
            refused += 1
    assert refused > 100


def with_header(descr: str, shape: str, data: bytes, version: bytes) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    size = len(header).to_bytes(2 if version == b"\1\0" else 4, "little")
    return b"\x93NUMPY" + version + size + header + data


@pytest.mark.parametrize("version", [b"\1\0", b"\2\0", b"\3\0", b"\4\7"])
@pytest.mark.parametrize(
    ("descr", "shape", "data"),
    [
        ("'|S0'", "(100000000000,)", b""),
        ("'|V0'", "(100000000000,)", b""),
        ("'<U0'", "(100000000000,)", b""),
        ("'|O'", "(1,)", b"12345678"),
        ("'|u1'", "(-2, -3)", b"123456"),
        ("'|u1'", "(True, 1, 1, 3)", b"123"),
        ("'|u1'", "(1.0,)", b"1"),
        ("'|u1'", "(1, 1, 1", b"1"),
        ("'|u1'", "(0, 100000000000000000)", b""),
        ("('|u1', (1000, 1000))", "(1, 1, 1)", b"1"),
        ("__import__('os').getpid()", "(1,)", b"1"),
    ],
)
def test_array_headers_that_lie(descr: str, shape: str, data: bytes, version: bytes, tmp_path: Path) -> None:
    array, path = with_header(descr, shape, data, version), tmp_path / "f.npz"
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("x.npy", array)
    (tmp_path / "t.npy").write_bytes(array)
    with pytest.raises(DataError):
        load_npz(path)
    with pytest.raises(DataError):
        tokens(tmp_path / "t.npy")


def test_an_array_that_inflates_without_measure_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    path.write_bytes(npz(True, x=np.zeros((1, 5000, 5000, 3), np.uint8)))
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"75 MB in 0.1 MB of file; arrays compressed more than 200-fold are not read"):
        load_npz(path)


def test_names_in_an_archive_reach_no_path(tmp_path: Path) -> None:
    """They are names of images, and nothing is written or opened by them."""
    picture = zipfile.ZipFile(io.BytesIO(archive(zipfile.ZIP_STORED))).read("a/0.png")
    path = tmp_path / "inner" / "f.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as target:
        for name in ("../../escaped.png", "/escaped.png", "C:\\escaped.png", "x/../../../escaped.png"):
            target.writestr(name, picture)
    images = load_archive(path)
    decoded(images)
    assert len(images) == 2  # names with a part that begins with a dot count as hidden
    assert sorted(found.name for found in tmp_path.rglob("*")) == ["f.zip", "inner"]
