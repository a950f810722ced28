"""Flips and shifts against a loop over images."""

from __future__ import annotations

import random

import pytest
import torch

from corank.calibration.augment import augmentation_for, augmented, check_augmentation, flip_and_shift
from corank.errors import ConfigError
from corank.notes import collected_notes


def test_every_image_is_a_flip_and_a_shift_of_itself() -> None:
    images = torch.rand(40, 3, 16, 24)
    moved = flip_and_shift(images, torch.Generator().manual_seed(5))
    assert moved.shape == images.shape
    kinds = set()
    for image, given in zip(images, moved, strict=True):
        found = [
            (flip, down, across)
            for flip in (False, True)
            for down in range(5)
            for across in range(5)
            if torch.equal(shifted(image.flip(2) if flip else image, down, across), given)
        ]
        assert len(found) == 1
        kinds.add(found[0])
    assert len(kinds) > 15 and {flip for flip, _, _ in kinds} == {False, True}


def test_the_generator_decides() -> None:
    images = torch.rand(8, 1, 8, 8)
    first, again = (flip_and_shift(images, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, flip_and_shift(images, torch.Generator().manual_seed(2)))


def test_what_is_not_an_image_is_left_alone() -> None:
    rows = torch.rand(5, 7)
    assert torch.equal(flip_and_shift(rows, torch.Generator()), rows)


def shifted(image: torch.Tensor, down: int, across: int) -> torch.Tensor:
    """The image moved by up to two pixels either way, zeros coming in."""
    _, height, width = image.shape
    padded = torch.zeros(3, height + 4, width + 4)
    padded[:, 2 : 2 + height, 2 : 2 + width] = image
    return padded[:, down : down + height, across : across + width]


@pytest.mark.parametrize("name", ["flip", "shift", "flip-shift", "erase", "flip-shift+erase"])
def test_parts_are_changed_as_the_whole_is(name: str) -> None:
    if "erase" in name:
        pytest.importorskip("timm")
    images = torch.rand(9, 3, 16, 16)
    whole = augmented(name, images, 7)
    parts = [augmented(name, images[start : start + 4], 7, start, 9) for start in (0, 4, 8)]
    assert torch.equal(torch.cat(parts), whole) and not torch.equal(whole, images)
    assert torch.equal(whole, augmented(name, images, 7)) and not torch.equal(whole, augmented(name, images, 8))


def test_flips_mirror_about_half() -> None:
    images = torch.rand(200, 1, 4, 4)
    given = augmented("flip", images, 1)
    mirrored = (given == images.flip(3)).flatten(1).all(1)
    assert bool((mirrored | (given == images).flatten(1).all(1)).all()) and 70 < int(mirrored.sum()) < 130


def test_flip_shift_is_one_after_the_other_as_ever() -> None:
    images = torch.rand(8, 3, 8, 8)
    assert torch.equal(augmented("flip-shift", images, 3), flip_and_shift(images, torch.Generator().manual_seed(3)))
    assert torch.equal(augmented("flip+shift", images, 3), augmented("flip-shift", images, 3))


def test_erasing_leaves_the_given_images_and_pythons_own_draws_alone() -> None:
    pytest.importorskip("timm")
    images = torch.rand(20, 3, 16, 16) + 1
    kept = images.clone()
    random.seed(1)
    before = random.getstate()
    erased = augmented("erase", images, 1)
    assert random.getstate() == before and torch.equal(images, kept)
    changed = [not torch.equal(one, other) for one, other in zip(erased, images, strict=True)]
    assert 3 < sum(changed) < 17 and bool(((erased == images) | (erased == 0)).all())


def test_other_data_is_left_alone_and_said_where_it_was_asked_for() -> None:
    ids = torch.ones(3, 4, dtype=torch.int64)
    assert augmented("flip", ids, 0) is ids
    with collected_notes() as notes:
        assert augmentation_for("flip-shift", ids) == "none" and not notes.texts
        assert augmentation_for("flip", torch.ones(2, 3, 4, 4)) == "flip" and not notes.texts
        assert augmentation_for("flip-shift", ids, asked=True) == "none"
    assert "images (N, C, H, W)" in " ".join(notes.texts)


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ConfigError, match=r"'rotate' is none of 'none', 'flip', 'shift', 'flip-shift', 'erase'"):
        check_augmentation("flip+rotate")
