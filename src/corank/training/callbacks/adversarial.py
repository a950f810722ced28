"""Adversarial training: each step learns from images that were changed so that the network errs (arXiv 1706.06083)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from corank.attacks import Attack, attacked
from corank.errors import ConfigError, DataError
from corank.training.callbacks.base import Callback
from corank.watching import evaluating

if TYPE_CHECKING:
    from corank.training.state import TrainingState

__all__ = ["Adversarial"]


@dataclass(frozen=True)
class Adversarial(Callback):
    """Before the network runs, its images are changed by an attack on the network as it is then.

    The attack raises the task's loss, without penalties, while the network is in evaluation mode, so that its norms see
    the changed images alone, once. What is distilled is what the float network gives for the images as they were. A
    step of FGSM costs one pass more, one of PGD as many as it has steps.

    Args:
        attack: as :meth:`corank.attacks.Attack.of` reads it: "fgsm:2/255", "pgd:2/255,10", or, what fast adversarial
            training takes (arXiv 2001.03994), one step from a random start: "pgd:8/255,1,10/255".
        mean, std: of each channel, what pixels from 0 to 1 are normalised by; empty for what the data's own
            preprocessing says.
    """

    attack: str = "fgsm:2/255"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        self.parsed  # noqa: B018 - raises where it cannot be

    @property
    def parsed(self) -> Attack:
        """The attack with what it knows of the pixels."""
        return Attack.of(self.attack).seen_by(tuple(self.mean), tuple(self.std))

    def start(self, state: TrainingState) -> None:
        if not self.std:
            raise ConfigError(
                "Adversarial: nothing says how pixels from 0 to 1 became these inputs; give images that "
                "corank.data.load reads, or Adversarial('fgsm:2/255', mean=(0.5,), std=(0.5,)), one number a channel"
            )

    def inputs_ready(self, state: TrainingState, loss_of: Callable[[Any], Tensor]) -> None:
        if not isinstance(state.batch, Tensor):
            raise DataError("Adversarial changes images (N, C, H, W), and these samples are mappings of tensors")
        images = state.batch.to(state.device)
        with evaluating(state.model):
            # by torch's own generator, which the loop seeds for each step and part
            state.batch = attacked(self.parsed, images, loss_of, torch.default_generator)
        state.outputs.clear()  # what penalties watched meanwhile
