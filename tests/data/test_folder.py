from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corank.data import Preprocessing
from corank.data.folder import load_folder
from corank.errors import DataError


def paint(path: Path, value: int, size: tuple[int, int] = (4, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    for index, name in enumerate(["cat/2.png", "cat/10.png", "ant/1.png", "dog/sub/1.png"]):
        paint(tmp_path / "animals" / name, index * 10)
    (tmp_path / "animals" / "cat" / "Thumbs.db").write_bytes(b"x")
    return tmp_path / "animals"


def test_class_folders(animals: Path) -> None:
    images = load_folder(animals)
    assert images.class_names == ("ant", "cat", "dog")
    assert images.labels is not None and images.labels.tolist() == [0, 1, 1, 2]
    assert (images.tensor()[:, 0, 0, 0] * 255).round().int().tolist() == [20, 10, 0, 30]


def test_flat_folder(animals: Path) -> None:
    images = load_folder(animals / "cat")
    assert len(images) == 2 and images.labels is None


def test_linked_class_folders_are_followed_and_loops_are_not(animals: Path) -> None:
    (animals / "eel").symlink_to(animals / "cat", target_is_directory=True)
    (animals / "dog" / "loop").symlink_to(animals, target_is_directory=True)
    images = load_folder(animals)
    assert images.class_names == ("ant", "cat", "dog", "eel")
    assert images.labels is not None and np.bincount(images.labels).tolist() == [1, 2, 1, 2]


def test_mixed_sizes_need_an_image_size(animals: Path) -> None:
    paint(animals / "dog" / "2.png", 0, size=(6, 4))
    for batch_size in (1, 5):
        with pytest.raises(DataError, match="--image-size"):
            list(load_folder(animals).batches(batch_size))
    assert load_folder(animals, Preprocessing(image_size=4)).tensor().shape == (5, 3, 4, 4)


def test_a_damaged_image_is_named_only_when_it_is_read(animals: Path) -> None:
    (animals / "cat" / "2.png").write_bytes(b"\x89PNG broken")
    images = load_folder(animals)
    with pytest.raises(DataError, match=r"cat/2\.png"):
        images.tensor()


def test_a_file_that_went_away_is_named(animals: Path) -> None:
    images = load_folder(animals)
    (animals / "ant" / "1.png").unlink()
    with pytest.raises(DataError, match=r"1\.png"):
        images.tensor()


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        load_folder(tmp_path / "nowhere")
