from __future__ import annotations

from pathlib import Path

import pytest
import torch

from corank.data import ImageSet, Preprocessing
from corank.data.python_file import load_function
from corank.errors import DataError


def returned(folder: Path, expression: str, preprocessing: Preprocessing | None = None) -> ImageSet:
    path = folder / "own.py"
    path.write_text(
        f"import numpy as np\nimport torch\nimport corank.data as data\ndef make():\n    return {expression}\n"
    )
    return load_function(path, "make", preprocessing)


def test_pixels_with_labels(tmp_path: Path) -> None:
    images = returned(tmp_path, "np.full((2, 4, 4, 3), 255, np.uint8), [1, 0]", Preprocessing(image_size=2))
    assert images.tensor().equal(torch.ones(2, 3, 2, 2))
    assert images.labels is not None and images.labels.tolist() == [1, 0]


@pytest.mark.parametrize("expression", ["torch.ones(2, 1, 4, 4)", "(torch.ones(2, 1, 4, 4), None)"])
def test_tensors_are_read_as_they_are(tmp_path: Path, expression: str) -> None:
    images = returned(tmp_path, expression, Preprocessing(image_size=2, mean=(1, 1, 1)))
    assert images.tensor().equal(torch.ones(2, 1, 4, 4)) and images.labels is None


def test_a_set_is_passed_on(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    assert len(returned(tmp_path, "data.load('digits:test')")) == 449


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("'photos'", "returned str"),
        ("None", "returned NoneType"),
        ("torch.ones(2, 1, 4, 4).double()", "float32"),
        ("torch.full((2, 3), float('nan'))", "NaN"),
        ("torch.ones(0, 3)", "float32"),
        ("np.zeros((2, 4, 4, 3))", "uint8"),
        ("np.zeros((2, 4, 4, 3), np.uint8), [1]", "one integer for each of 2"),
        ("torch.ones(2, 3), torch.ones(2)", "one integer for each of 2"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, expression: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        returned(tmp_path, expression)
