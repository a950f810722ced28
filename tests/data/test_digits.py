from __future__ import annotations

import numpy as np
import pytest

from corank.data import Preprocessing
from corank.errors import DataError

pytest.importorskip("sklearn")

from corank.data.digits import load_digits


def test_all_digits() -> None:
    images = load_digits()
    tensor = images.tensor()
    assert tensor.shape == (1797, 1, 8, 8) and tensor.min() == 0 and tensor.max() == 1
    assert images.class_names is not None and images.class_names[3] == "3"


def test_splits_are_disjoint_and_complete() -> None:
    train, test = load_digits("train"), load_digits("test")
    assert test.indices is not None and train.indices is not None
    assert test.indices.tolist() == list(range(3, 1797, 4))
    assert sorted([*train.indices, *test.indices]) == list(range(1797))
    assert test.labels is not None and np.bincount(test.labels).min() >= 35


def test_preprocessing_is_the_models() -> None:
    assert load_digits("test", Preprocessing(image_size=16)).select([0]).tensor().shape == (1, 3, 16, 16)


def test_no_such_split() -> None:
    with pytest.raises(DataError, match="digits:train"):
        load_digits("validation")
