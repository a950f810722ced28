"""Random changes of image batches, each a function of a seed and of the image's place in its batch.

Shapes: N images of C channels, H rows and W columns.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from corank.calibration.seeds import seed_of
from corank.errors import ConfigError
from corank.notes import note

__all__ = ["AUGMENTATIONS", "augmentation_for", "augmented", "check_augmentation", "flip_and_shift"]


@dataclass(frozen=True)
class _Part:
    """Of which images of a batch the numbers are drawn: those of the whole batch, of which others are elsewhere."""

    start: int
    count: int
    total: int

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + self.count)


def flip_and_shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image ``(N, C, H, W)`` mirrored with probability one half and shifted by up to an eighth of its side."""
    if images.dim() != 4:
        return images
    part = _Part(0, len(images), len(images))
    return _shifted(_flipped(images, generator, part), generator, part)


def augmented(name: str, batch: Any, seed: int, start: int = 0, total: int | None = None) -> Any:
    """A batch, or a part of one, changed at random.

    Every image depends on ``seed`` and on its place in the batch alone: of whichever parts a batch is put together, and
    in whichever processes, it is the same.

    Args:
        name: see :data:`AUGMENTATIONS`; several are joined by "+", such as "flip-shift+erase".
        batch: images ``(N, C, H, W)`` of floating numbers; anything else is given back as it is.
        seed: of this step, such as :meth:`corank.calibration.Batches.seed` gives.
        start: the place of the part's first image in the batch.
        total: images in the whole batch; None: those that are given.

    Raises:
        ConfigError: for a name that is not known, or whose package is missing.
    """
    check_augmentation(name)
    if not _are_images(batch):
        return batch
    part = _Part(start, len(batch), len(batch) if total is None else total)
    generator = torch.Generator().manual_seed(seed)
    for one in name.split("+"):
        batch = AUGMENTATIONS[one](batch, generator, part)
    return batch


def check_augmentation(name: str) -> None:
    """Raises ConfigError for what is no augmentation, or needs a package that is not installed."""
    unknown = [one for one in str(name).split("+") if one not in AUGMENTATIONS]
    if unknown:
        raise ConfigError(
            f"augment={name!r}: {unknown[0]!r} is none of {', '.join(map(repr, AUGMENTATIONS))}; "
            "several are joined by '+', e.g. 'flip-shift+erase'"
        )
    if "erase" in name.split("+"):
        _eraser()


def augmentation_for(name: str, batch: Any, asked: bool = False) -> str:
    """``name``, or "none" where the samples are no images: what the run then says if the user ``asked`` for it."""
    check_augmentation(name)
    if name == "none" or _are_images(batch):
        return name
    if asked:
        note(
            f"augment={name!r} changes floating images (N, C, H, W) alone, and these samples are none: left as they are"
        )
    return "none"


def _are_images(batch: Any) -> bool:
    return isinstance(batch, Tensor) and batch.dim() == 4 and batch.is_floating_point()


def _unchanged(images: Tensor, generator: torch.Generator, part: _Part) -> Tensor:
    return images


def _flipped(images: Tensor, generator: torch.Generator, part: _Part) -> Tensor:
    """Mirrored with probability one half."""
    chance = torch.rand(part.total, generator=generator, dtype=torch.float32)
    flip = chance[part.rows].to(images.device) < 0.5
    return torch.where(flip[:, None, None, None], images.flip(3), images)


def _shifted(images: Tensor, generator: torch.Generator, part: _Part) -> Tensor:
    """Moved by up to an eighth of the shorter side either way, zeros coming in: a random crop of the padded image."""
    count, _, height, width = images.shape
    reach = max(1, min(height, width) // 8)
    padded = F.pad(images, (reach, reach, reach, reach), mode="constant")
    moves = torch.randint(0, 2 * reach + 1, (part.total, 2), generator=generator)[part.rows].to(images.device)
    rows = moves[:, 0, None] + torch.arange(height, device=images.device)
    columns = moves[:, 1, None] + torch.arange(width, device=images.device)
    sample = torch.arange(count, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _flipped_and_shifted(images: Tensor, generator: torch.Generator, part: _Part) -> Tensor:
    return _shifted(_flipped(images, generator, part), generator, part)


def _erased(images: Tensor, generator: torch.Generator, part: _Part) -> Tensor:
    """A rectangle of 2 % to a third of the image set to zero with probability one half (Random Erasing, Zhong et al.,
    arXiv 1708.04896), as timm does it to normalised images."""
    erase, images = _eraser()(probability=0.5, mode="const", device=images.device), images.clone()
    base = int(torch.randint(0, 2**62, (1,), generator=generator))
    for place, image in enumerate(images):
        with _python_seeded(seed_of(base, part.start + place)):  # timm asks Python's own generator
            erase(image)
    return images


def _eraser() -> Any:
    try:
        from timm.data.random_erasing import RandomErasing
    except ImportError as error:
        raise ConfigError("augment='erase' needs timm: pip install 'corank[vision]'") from error
    except RuntimeError as error:
        raise ConfigError(f"torchvision and torch are of different builds, install them together: {error}") from error
    return RandomErasing


@contextmanager
def _python_seeded(seed: int) -> Iterator[None]:
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator, _Part], Tensor]] = {
    "none": _unchanged,
    "flip": _flipped,
    "shift": _shifted,
    "flip-shift": _flipped_and_shifted,
    "erase": _erased,
}
