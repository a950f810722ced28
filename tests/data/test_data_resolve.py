from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corank.data import load
from corank.errors import DataError


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, a .zip, an .npz and a Python file, each of six images."""
    for index in range(6):
        folder = tmp_path / "photos" / "ab"[index // 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (index, 0, 0)).save(folder / f"{index}.png")
    with zipfile.ZipFile(tmp_path / "photos.ZIP", "w") as archive:
        for path in sorted((tmp_path / "photos").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path))
    pixels = np.zeros((6, 2, 2, 3), np.uint8)
    pixels[..., 0] = np.arange(6)[:, None, None]
    np.savez(tmp_path / "photos.npz", images=pixels, labels=np.array([0, 0, 0, 1, 1, 1]))
    (tmp_path / "photos.py").write_text(
        "import numpy as np\ndef make():\n    file = np.load('photos.npz')\n    return file['images'], file['labels']\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("reference", ["photos", "photos.ZIP", "photos.npz", "photos.py:make"])
def test_every_form_gives_the_same_images(place: Path, reference: str) -> None:
    images = load(f"{reference}[1::2]", labelled=True)
    assert images.labels is not None and images.labels.tolist() == [0, 1, 1]
    assert (images.tensor()[:, 0, 0, 0] * 255).round().int().tolist() == [1, 3, 5]


def test_a_folder_whose_name_looks_like_a_slice(place: Path) -> None:
    (place / "photos").rename(place / "photos[0:2]")
    assert len(load("photos[0:2]")) == 6
    assert len(load("photos[0:2][0:2]")) == 2


def test_digits() -> None:
    pytest.importorskip("sklearn")
    assert len(load("digits")) == 1797
    assert len(load("digits:test[:10]", labelled=True)) == 10


def test_labels_where_needed(place: Path) -> None:
    with pytest.raises(DataError, match="one folder per class"):
        load("photos/a", labelled=True)


@pytest.mark.parametrize("reference", ["nowhere", "photos.txt", "", "torchvision:resnet18"])
def test_unknown_references_say_what_is_possible(place: Path, reference: str) -> None:
    with pytest.raises(DataError, match=r"a folder, an image, a \.zip, \.npz or \.tar file, shards"):
        load(reference)


@pytest.mark.parametrize("reference", ["photos[9:]", "photos[1]", "photos[]", "photos.npz[x:]"])
def test_slices_that_hold_nothing(place: Path, reference: str) -> None:
    with pytest.raises(DataError, match="slice"):
        load(reference)


@pytest.mark.parametrize("reference", ["missing.zip", "missing.npz", "missing.py:make"])
def test_missing_files(place: Path, reference: str) -> None:
    with pytest.raises(DataError, match="there is no file missing"):
        load(reference)


def test_keys_belong_to_npz(place: Path) -> None:
    assert len(load("photos.npz", image_key="images")) == 6
    with pytest.raises(DataError, match=r"\.npz"):
        load("photos", image_key="images")
