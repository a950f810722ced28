"""Images changed so that a network errs: FGSM (arXiv 1412.6572) and PGD (arXiv 1706.06083), in the l-infinity ball.

Shapes: N images of C channels, H rows and W columns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from corank.errors import ConfigError, DataError, ModelError

__all__ = ["Attack", "attacked"]

_FORM = re.compile(r"(?P<kind>fgsm|pgd):(?P<numbers>[0-9./e,\-]+)")
_EXAMPLES = "'fgsm:2/255', 'pgd:2/255,10' or, with a step of its own, 'pgd:8/255,10,2/255'"
_BEYOND = 1e-3  # of a pixel from 0 to 1, that rounding may put an image beyond
_USUAL = 2.5  # balls that all steps of PGD together would cross, where nothing else was said


@dataclass(frozen=True)
class Attack:
    """Gradient steps that raise the loss, of images whose pixels may each change by ``epsilon`` and stay in 0 to 1.

    A step is ``step * sign(gradient)``. FGSM is one step of ``epsilon`` from the image; PGD starts at a random place in
    the ball and goes back into it, and into the range of pixels, after each of its steps.

    Args:
        epsilon: the ball's radius, of pixels from 0 to 1.
        steps: how many; 0 leaves the random start alone.
        step: of each, of pixels from 0 to 1.
        random: whether it starts at a random place in the ball.
        mean, std: of each channel, what pixels from 0 to 1 are normalised by before the network reads them; empty where
            :meth:`seen_by` is to say it.
    """

    epsilon: float
    steps: int = 1
    step: float = 0.0
    random: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("epsilon", "step"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value <= 1:
                raise ConfigError(f"Attack({name}={value!r}): of pixels from 0 to 1, e.g. Attack.of('fgsm:2/255')")
        if type(self.steps) is not int or not 0 <= self.steps <= 10_000:
            raise ConfigError(f"Attack(steps={self.steps!r}): a whole number of steps, e.g. Attack.of('pgd:2/255,10')")
        if (
            len(self.mean) != len(self.std)
            or not all(map(math.isfinite, self.mean))
            or not all(s > 0 for s in self.std)
        ):
            raise ConfigError(
                f"Attack(mean={self.mean}, std={self.std}): finite numbers, one per channel each, and std above 0"
            )

    @classmethod
    def of(cls, text: str) -> Attack:
        """The attack that is written so: ``fgsm:EPSILON`` or ``pgd:EPSILON,STEPS[,STEP]``, numbers as ``2/255`` or
        ``0.008``. A step of PGD is ``2.5 EPSILON / STEPS`` unless it is given.

        Raises:
            ConfigError: for anything else.
        """
        found = _FORM.fullmatch(text) if isinstance(text, str) else None
        numbers = [] if found is None else [_number(part) for part in found["numbers"].split(",")]
        if found is None or None in numbers or len(numbers) not in ((1,) if found["kind"] == "fgsm" else (2, 3)):
            raise ConfigError(f"the attack {text!r:.60} cannot be read; write {_EXAMPLES}")
        epsilon, *more = (float(number or 0) for number in numbers)
        if found["kind"] == "fgsm":
            return cls(epsilon, 1, epsilon)
        if more[0] != int(more[0]) or more[0] < 1:
            raise ConfigError(
                f"the attack {text!r:.60} has {more[0]:g} steps; give a whole number of them: {_EXAMPLES}"
            )
        steps = int(more[0])
        return cls(epsilon, steps, more[1] if len(more) > 1 else min(1.0, _USUAL * epsilon / steps), random=True)

    @property
    def name(self) -> str:
        """As :meth:`of` reads it, epsilon in 255ths."""
        if not self.random and self.steps == 1 and self.step == self.epsilon:
            return f"fgsm:{_in_255ths(self.epsilon)}"
        usual = self.step == min(1.0, _USUAL * self.epsilon / max(1, self.steps))
        own = "" if usual else f",{_in_255ths(self.step)}"
        return f"pgd:{_in_255ths(self.epsilon)},{self.steps}{own}"

    def seen_by(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Attack:
        """The same for images that are normalised so, unless it says that itself."""
        return self if self.std else replace(self, mean=mean, std=std)

    def bounds(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the largest that each number of ``images`` ``(N, C, H, W)`` may become.

        Raises:
            ConfigError: where nothing says how pixels became inputs. DataError: for what those images cannot be.
        """
        if images.dim() != 4 or not images.is_floating_point():
            raise DataError(f"attacks are on images (N, C, H, W), and a {images.dtype} {tuple(images.shape)} was given")
        if not self.std:
            raise ConfigError(
                "nothing says how pixels from 0 to 1 became these inputs; give images that corank.data.load reads, or "
                "say what yours were normalised by: Attack.of('fgsm:2/255').seen_by(mean=(0.5,), std=(0.5,))"
            )
        if len(self.std) != images.shape[1]:
            raise DataError(
                f"mean and std are of {len(self.std)} channels, and the images have {images.shape[1]}: give one number "
                "for each channel"
            )
        mean, std = (
            torch.tensor(one, dtype=images.dtype, device=images.device).view(-1, 1, 1) for one in (self.mean, self.std)
        )
        # as Preprocessing computes it, so that black and white are met exactly
        black, white = (torch.zeros_like(mean) - mean) / std, (torch.ones_like(mean) - mean) / std
        slack = _BEYOND / std
        if images.numel() and not bool(((images >= black - slack) & (images <= white + slack)).all()):
            raise DataError(
                f"the inputs are no pixels from 0 to 1 normalised by mean {self.mean} and std {self.std}: they reach "
                f"from {float(images.amin()):.3g} to {float(images.amax()):.3g}; give the mean and std that they were "
                "normalised by"
            )
        reach = self.epsilon / std
        return torch.maximum(images - reach, black), torch.minimum(images + reach, white)


def attacked(
    attack: Attack, images: Tensor, loss_of: Callable[[Tensor], Tensor], generator: torch.Generator | None = None
) -> Tensor:
    """The images as the attack changes them, each by what is within its :meth:`~Attack.bounds`; detached.

    Args:
        attack: that is carried out.
        images: float ``(N, C, H, W)``, as the network reads them.
        loss_of: the loss to raise, of such images; a scalar, a mean or a sum over the samples.
        generator: on the CPU, of a random start; None for torch's own.

    Raises:
        ConfigError, DataError: see :meth:`Attack.bounds`. ModelError: where the loss has no gradient.
    """
    images = images.detach()
    low, high = attack.bounds(images)
    std = torch.tensor(attack.std, dtype=images.dtype, device=images.device).view(-1, 1, 1)
    found = images
    if attack.random:
        drawn = torch.rand(images.shape, generator=generator, dtype=torch.float32).to(images)
        found = torch.clamp(images + (2 * drawn - 1) * attack.epsilon / std, low, high)
    for _ in range(attack.steps):
        probe = found.clone().requires_grad_()
        with torch.enable_grad():
            loss = loss_of(probe)
            if not loss.requires_grad:
                raise ModelError(
                    "the loss has no gradient with respect to the images, so nothing says how to change them"
                )
            (gradient,) = torch.autograd.grad(loss, probe)
        found = torch.clamp(found + attack.step / std * gradient.sign(), low, high)
    return found


def _in_255ths(value: float) -> str:
    return f"{255 * value:.6g}/255"


def _number(text: str) -> float | None:
    """``2/255`` or ``0.03``; None for what is no finite number from 0."""
    over, _, under = text.partition("/")
    try:
        value = float(over) / float(under) if under else float(over)
    except (ValueError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) and value >= 0 and not text.endswith("/") else None
