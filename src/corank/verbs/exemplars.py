"""Samples of classes that a network knows, few of each, which stand for the others when it learns further ones."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.calibration import generator_of, run
from corank.data import ImageSet
from corank.devices import chosen_device, device_of
from corank.errors import ConfigError, DataError
from corank.evaluation.placed import placed
from corank.layers import module_named
from corank.verbs.class_head import head_name
from corank.verbs.labelled import labels_of
from corank.watching import evaluating, input_of, watched

__all__ = ["choose_exemplars", "herded"]

METHODS = ("herding", "random")
_AT_ONCE = 100


def choose_exemplars(
    model: nn.Module,
    data: Any,
    per_class: int,
    *,
    method: str = "herding",
    head: str | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
) -> Any:
    """The samples of each class that :func:`corank.train_classes` is to remember.

    Args:
        model: what is known of the classes: its last layer's inputs are the features of a sample.
        data: labelled: an :class:`~corank.data.ImageSet`, or a tensor ``(N, ...)`` and labels ``(N,)``.
        per_class: how many of each; of a class that has fewer, all.
        method: "herding" (of iCaRL, arXiv 1611.07725): so that the mean of the chosen samples' features, of unit
            length, is close to their class's; of a longer choice the first ones are the shorter choice. Or "random".
        head: name of the linear layer whose rows are the classes; None for the last.
        seed: of random choices.
        device: where features are computed.

    Returns:
        The same kind as ``data``: class after class, in the order in which they were chosen.

    Raises:
        ConfigError, DataError, ModelError: for what cannot be.
    """
    if method not in METHODS:
        raise ConfigError(f"method={method!r:.60}: one of {', '.join(map(repr, METHODS))}")
    if type(per_class) is not int or per_class < 1:
        raise ConfigError(f"per_class={per_class!r}: samples of each class, from 1, e.g. per_class=20")
    labels = labels_of(data, "exemplars")
    features = None
    if method == "herding":
        features = _features(placed(model, chosen_device(device, device_of(model))), data, head)
    chosen: list[Tensor] = []
    for kind in labels.unique().tolist():
        own = (labels == kind).nonzero().flatten()
        if features is None:
            order = torch.randperm(len(own), generator=generator_of(seed, "exemplars", kind))[:per_class]
        else:
            order = herded(features[own], per_class)
        chosen.append(own[order])
    places = torch.cat(chosen)
    return data.select(places.numpy()) if isinstance(data, ImageSet) else (data[0][places], data[1][places])


def herded(features: Tensor, count: int) -> Tensor:
    """At most ``count`` rows, chosen one by one so that their mean is as close as possible to that of all.

    Args:
        features: ``(N, F)``, scaled to unit length here.
        count: how many; int64 ``(min(count, N),)`` is what comes back.
    """
    unit = F.normalize(features.double(), dim=1)
    mean, total = unit.mean(0), torch.zeros_like(unit[0])
    free, chosen = torch.ones(len(unit), dtype=torch.bool, device=unit.device), list[int]()
    for number in range(1, min(count, len(unit)) + 1):
        apart = ((total + unit) / number - mean).square().sum(1)
        place = int(apart.masked_fill(~free, float("inf")).argmin())
        total, free[place] = total + unit[place], False
        chosen.append(place)
    return torch.tensor(chosen, dtype=torch.int64)


def _features(model: nn.Module, data: Any, head: str | None) -> Tensor:
    """What the last layer is fed with, ``(N, F)`` on the CPU."""
    found: list[Tensor] = []

    def keep(_module: object, args: tuple[Any, ...], named: dict[str, Any], _output: object) -> None:
        found.append(input_of(args, named).detach().float().cpu())

    if isinstance(data, ImageSet):
        batches = (images for images, _ in data.batches(_AT_ONCE))
    else:
        batches = iter(data[0].split(_AT_ONCE))
    name, count = head_name(model, head), 0
    with torch.no_grad(), evaluating(model), watched({name: module_named(model, name)}, lambda _: keep):
        for batch in batches:
            run(model, batch, device_of(model))
            count += len(batch)
    if not found or any(one.dim() != 2 for one in found) or sum(map(len, found)) != count:
        raise DataError(f"the layer {name!r} is not fed with one row of features a sample; name the head: head='fc'")
    return torch.cat(found)
