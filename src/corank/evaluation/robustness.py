"""How often a classifier is right about images that were changed so that it errs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from corank.attacks import Attack, attacked
from corank.autograd import recording
from corank.calibration import generator_of, run
from corank.data.pixel_scale import pixel_scale
from corank.devices import device_of
from corank.errors import ConfigError, DataError, ModelError
from corank.losses import logits_of

__all__ = ["attacks_on", "hits_under"]


def attacks_on(data: Any, attacks: Sequence[str | Attack]) -> dict[str, Attack]:
    """The attacks by name, told how the data's pixels became inputs where the data says so.

    Raises:
        ConfigError: for what is no attack.
    """
    if isinstance(attacks, (str, Attack)):
        attacks = [attacks]
    scale, found = pixel_scale(data), dict[str, Attack]()
    for one in attacks:
        if not isinstance(one, (str, Attack)):
            raise ConfigError(f"attacks={one!r:.60}: names such as 'fgsm:2/255' or 'pgd:2/255,10', or Attack.of(NAME)")
        attack = Attack.of(one) if isinstance(one, str) else one
        found[attack.name] = attack if scale is None else attack.seen_by(*scale)
    return found


@recording()
def hits_under(attack: Attack, model: nn.Module, batch: tuple[Any, Tensor | None], first: int) -> int:
    """Of how many images the label is the largest logit after they were attacked.

    Args:
        attack: that is carried out.
        model: in evaluation mode.
        batch: images ``(N, C, H, W)`` and labels ``(N,)``.
        first: the place of the first of them in the data, which with the attack draws its random starts.

    Raises:
        DataError: for other inputs, or no labels. ModelError: when the output is not logits.
    """
    images, labels = batch
    if not isinstance(images, Tensor) or labels is None:
        raise DataError("attacks need images (N, C, H, W) and their labels; leave attacks out for other data")
    device = device_of(model)
    # of a caller's inference mode: autograd refuses its tensors
    images, labels = images.detach().clone().to(device), labels.clone().to(device)

    def logits(inputs: Tensor) -> Tensor:
        found = logits_of(run(model, inputs, device))
        if found is None:
            raise ModelError("attacks need logits (N, classes); this model gives something else")
        return found

    changed = attacked(
        attack, images, lambda inputs: F.cross_entropy(logits(inputs).float(), labels, reduction="sum"),
        generator_of("attack", attack.name, first),
    )  # fmt: skip
    return int((logits(changed).argmax(1) == labels).sum())
