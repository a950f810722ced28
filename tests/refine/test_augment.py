"""Flips and shifts against a loop over images."""

from __future__ import annotations

import torch

from corank.refine.augment import flip_and_shift


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
