from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy

from corank.data.npz import load_npz
from corank.errors import DataError

PIXELS = np.random.RandomState(0).randint(0, 256, (5, 4, 4, 3), dtype=np.uint8)


def test_default_keys(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x_train=PIXELS[:1], x_test=PIXELS, y_test=np.arange(5))
    images = load_npz(tmp_path / "a.npz")
    assert images.labels is not None and images.labels.tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal((images.tensor() * 255).round().byte().permute(0, 2, 3, 1).numpy(), PIXELS)


def test_keys_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=PIXELS, photos=PIXELS[:2], kinds=np.array([4, 2], np.uint8))
    assert load_npz(tmp_path / "a.npz", image_key="photos").labels is None
    images = load_npz(tmp_path / "a.npz", image_key="photos", label_key="kinds")
    assert images.labels is not None and images.labels.tolist() == [4, 2]


def test_targets_that_are_no_classes_matter_only_where_labels_do(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=PIXELS, y=np.zeros(5))
    assert load_npz(tmp_path / "a.npz").labels is None
    with pytest.raises(DataError, match="one integer"):
        load_npz(tmp_path / "a.npz", labelled=True)


def test_unknown_keys_list_the_known(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=PIXELS, extra=PIXELS)
    for options in ({"image_key": "z"}, {"label_key": "y"}, {"labelled": True}):
        with pytest.raises(DataError, match="it has x, extra"):
            load_npz(tmp_path / "a.npz", **options)  # pyright: ignore[reportArgumentType]


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([print], dtype=object))
    with pytest.raises(DataError, match="Python objects"):
        load_npz(tmp_path / "a.npz")


def test_a_header_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    described = {"descr": "|u1", "fortran_order": False, "shape": (10**7, 100, 100, 3)}
    npy.write_array_header_1_0(header, described)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + b"\0" * 48)
    with pytest.raises(DataError, match="does not bear out"):
        load_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("keep", [0, 100, -40])
def test_truncated_files_are_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=PIXELS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="not a sound"):
        load_npz(path)


def test_exact_cifar(shared: Path) -> None:
    images = load_npz(shared / "data" / "cifar10_exact.npz", image_key="x_train")
    assert len(images) == 4000 and images.labels is not None and set(images.labels) == set(range(10))
