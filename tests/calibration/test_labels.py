"""Labels in every form, and what token sequences predict."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from corank.calibration import following_tokens, inputs_and_labels
from corank.errors import DataError

IMAGES, CLASSES = torch.randn(4, 3, 2, 2), torch.tensor([0, 2, 1, 2])


@pytest.mark.parametrize(
    "batch",
    [
        (IMAGES, CLASSES),
        [IMAGES, CLASSES],
        (IMAGES, CLASSES.int()),
        (IMAGES, CLASSES[:, None]),
        (IMAGES, CLASSES, "paths"),
        {"x": IMAGES, "labels": CLASSES},
        {"x": IMAGES, "target": CLASSES},
        ({"x": IMAGES, "label": CLASSES + 1}, CLASSES),
    ],
)
def test_labels_are_found_in_every_form(batch: Any) -> None:
    inputs, labels = inputs_and_labels(batch)
    assert torch.equal(inputs if isinstance(inputs, torch.Tensor) else inputs["x"], IMAGES)
    assert labels is not None and labels.dtype == torch.int64 and torch.equal(labels, CLASSES)
    assert isinstance(inputs, torch.Tensor) or list(inputs) == ["x"]


@pytest.mark.parametrize("batch", [IMAGES, [IMAGES], (IMAGES, ["a", "b", "c", "d"]), {"x": IMAGES, "labels": "no"}])
def test_what_is_no_tensor_is_no_label(batch: Any) -> None:
    assert inputs_and_labels(batch)[1] is None


def test_soft_labels_stay_as_they_are() -> None:
    soft = torch.rand(4, 1)
    assert torch.equal(inputs_and_labels((IMAGES, soft))[1], soft)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ((IMAGES, CLASSES[:3]), "3 labels for 4 samples"),
        (IMAGES.new_full((2, 3), float("nan")), "NaN"),
        (3.0, "a batch is"),
    ],
)
def test_what_is_refused(batch: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        inputs_and_labels(batch)


def test_padding_alone_is_left_out_with_its_label() -> None:
    ids, mask = torch.arange(6).view(3, 2), torch.tensor([[1, 1], [0, 0], [1, 0]])
    inputs, labels = inputs_and_labels({"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([1, 2, 3])})
    assert inputs["input_ids"].tolist() == [[0, 1], [4, 5]] and labels is not None and labels.tolist() == [1, 3]


def test_a_position_predicts_the_next_real_token() -> None:
    ids = torch.tensor([[5, 6, 7, 0], [8, 9, 3, 2]])
    assert following_tokens(ids).tolist() == [[6, 7, 0, -100], [9, 3, 2, -100]]  # pyright: ignore[reportOptionalMemberAccess]
    padded = {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])}
    assert following_tokens(padded).tolist() == [[6, 7, -100, -100], [9, 3, 2, -100]]  # pyright: ignore[reportOptionalMemberAccess]
    left = {"input_ids": ids, "attention_mask": torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])}
    assert following_tokens(left).tolist() == [[-100, 7, 0, -100], [9, 3, 2, -100]]  # pyright: ignore[reportOptionalMemberAccess]
    assert following_tokens(IMAGES) is None
    assert following_tokens({"input_ids": ids, "decoder_input_ids": ids}) is None


def test_labels_that_repeat_the_tokens_become_what_is_predicted() -> None:
    ids = torch.tensor([[5, 6, 7, 4]])
    repeated = {"input_ids": ids, "labels": torch.tensor([[-100, 6, 7, 4]])}
    assert inputs_and_labels(repeated)[1].tolist() == [[6, 7, 4, -100]]  # pyright: ignore[reportOptionalMemberAccess]
    own = {"input_ids": ids, "labels": torch.tensor([[6, 7, 4, 9]])}
    assert inputs_and_labels(own)[1].tolist() == [[6, 7, 4, 9]]  # pyright: ignore[reportOptionalMemberAccess]
