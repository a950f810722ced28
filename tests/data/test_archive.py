from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corank.data import load
from corank.data.archive import load_archive
from corank.errors import DataError


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (3, 3), value).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, value in (("b/1.png", 50), ("a/2.png", 20), ("a/1.png", 10)):
            file.writestr(name, png(value))
        file.writestr("__MACOSX/a/._1.png", b"junk")
        file.writestr("notes.txt", "hello")
    return path


def test_entries_are_sorted_and_labelled(archive: Path) -> None:
    images = load_archive(archive)
    assert images.class_names == ("a", "b")
    assert images.labels is not None and images.labels.tolist() == [0, 0, 1]
    assert (images.tensor()[:, 0, 0, 0] * 255).round().int().tolist() == [10, 20, 50]


def test_nothing_is_extracted(archive: Path) -> None:
    load_archive(archive).tensor()
    assert [path.name for path in archive.parent.iterdir()] == ["set.zip"]


def test_an_entry_of_absurd_size_is_refused_before_it_is_read(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    central = data.rfind(b"PK\x01\x02", 0, data.rfind(b"a/1.png"))
    data[central + 24 : central + 28] = (2**32 - 2).to_bytes(4, "little")
    archive.write_bytes(data)
    with pytest.raises(DataError, match=r"a/1\.png says it holds 4295 MB"):
        load_archive(archive).tensor()


def test_a_flipped_bit_names_the_entry(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    start = data.find(b"a/2.png") + len("a/2.png")
    data[start + 20] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(DataError, match=r"a/2\.png"):
        load_archive(archive).tensor()


def test_encrypted_entries_are_refused(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    for mark, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data[data.find(mark) + offset] |= 1
    archive.write_bytes(data)
    with pytest.raises(DataError, match="encrypted"):
        load_archive(archive).tensor()


def test_truncated_archives_are_refused(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(DataError, match="not a sound"):
        load_archive(archive)


def test_an_archive_without_images(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(DataError, match="looked for"):
        load_archive(tmp_path / "empty.zip")


def test_cifar(shared: Path) -> None:
    path = shared / "data" / "cifar10_jpeg_test.zip"
    images = load(str(path), labelled=True)
    assert len(images) == 10_000 and images.labels is not None
    assert np.bincount(images.labels).tolist() == [1000] * 10
    assert images.class_names is not None and images.class_names[::9] == ("airplane", "truck")
    part = load(f"{path}[1::1000]")
    assert part.labels is not None and part.labels.tolist() == list(range(10))
    with zipfile.ZipFile(path) as file, Image.open(file.open("frog/0001.jpg")) as frog:
        expected = np.asarray(frog)
    assert np.array_equal((part.tensor()[6] * 255).round().byte().permute(1, 2, 0).numpy(), expected)
