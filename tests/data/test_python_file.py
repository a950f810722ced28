from __future__ import annotations

from pathlib import Path

import pytest
import torch

from corank.data import BatchSet, ImageSet, Preprocessing, Tokenization, TokenSet
from corank.data.python_file import load_function
from corank.errors import DataError


def made(
    folder: Path, expression: str, preprocessing: Preprocessing | None = None, reading: Tokenization | None = None
) -> ImageSet | TokenSet | BatchSet:
    path = folder / "own.py"
    path.write_text(
        f"import numpy as np\nimport torch\nimport corank.data as data\ndef make():\n    return {expression}\n"
    )
    return load_function(path, "make", preprocessing, reading)


def returned(folder: Path, expression: str, preprocessing: Preprocessing | None = None) -> ImageSet:
    found = made(folder, expression, preprocessing)
    assert isinstance(found, ImageSet)
    return found


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
    "expression", ["torch.arange(12).reshape(3, 4)", "np.arange(12, dtype=np.uint16).reshape(3, 4)"]
)
def test_token_ids(tmp_path: Path, expression: str) -> None:
    found = made(tmp_path, expression)
    assert isinstance(found, TokenSet) and found.ids.equal(torch.arange(12).reshape(3, 4))
    found = made(tmp_path, "torch.arange(12)", reading=Tokenization(6))
    assert isinstance(found, TokenSet) and found.ids.equal(torch.arange(12).reshape(2, 6))


@pytest.mark.parametrize(
    ("expression", "labelled"),
    [
        ("{'a': torch.ones(4, 2), 'b': torch.ones(4, 3)}", False),
        ("({'a': torch.ones(4, 2), 'b': torch.ones(4, 3)}, [0, 1, 0, 1])", True),
        ("[{'a': torch.ones(2, 2)}, {'a': torch.ones(2, 2)}]", False),
        ("[(torch.ones(2, 2), torch.zeros(2, dtype=torch.int64))] * 2", True),
        ("(torch.ones(2, 3) for _ in range(2))", False),
        ("data.BatchSet((torch.ones(4, 2),))", False),
    ],
)
@pytest.mark.parametrize("reading", [None, Tokenization()])
def test_batches(tmp_path: Path, expression: str, labelled: bool, reading: Tokenization | None) -> None:
    found = made(tmp_path, expression, reading=reading)
    assert isinstance(found, BatchSet) and len(found) == 4 and (found.labels is not None) is labelled


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
