"""What the public call was given: checked, and its samples read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from corank.calibration import Samples
from corank.data import ImageSet, TokenSet
from corank.errors import ConfigError, ModelError
from corank.layers.meta import check_values
from corank.losses import Loss
from corank.plan import LayerPlan, Plan
from corank.refine import BlockReconstruction, Refinement

__all__ = ["check_kinds", "check_loss", "check_numbers", "check_range", "read_samples", "sample_limit"]

_SAMPLES, _TOKENS = 1600, 102_400  # of images or the like, and of token sequences, unless the caller says otherwise


_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "budget": (Real, "extra bits per weight, e.g. budget=0.25"),
    "layers": (Mapping, 'exceptions by name pattern, e.g. layers={"conv1": 8, "*.downsample.*": "float"}'),
    "plan": (Plan, 'a corank.Plan, e.g. plan=corank.Plan.load("plan.json")'),
    "refinement": ((Refinement, BlockReconstruction), "e.g. refinement=corank.Refinement(iterations=100)"),
    "device": ((str, int, torch.device), 'e.g. device="cpu", or "auto"'),
}


def check_kinds(model: object, **given: Any) -> None:
    """Raises ModelError or ConfigError for a model, or arguments by name, of another kind than they can be."""
    _check_model(model)
    for name, value in given.items():
        kind, allowed = _KINDS[name]
        if value is not None and not isinstance(value, kind):
            raise ConfigError(f"{name}={_short(value)}: {allowed}")
    for pattern in given.get("layers") or {}:
        if not isinstance(pattern, str):
            raise ConfigError(f"layers: the pattern {_short(pattern)} is no text; {_KINDS['layers'][1]}")
    if given.get("device", "auto") is None:
        raise ConfigError(f"device=None: {_KINDS['device'][1]}")


def _check_model(model: object) -> None:
    """Raises ModelError for what is not an eager module whose weights are there."""
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"the model is {_short(model)}, not a torch.nn.Module; for names and files there is "
            'corank.models.resolve, e.g. resolve("torchvision:resnet18").model'
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError("the model is scripted or traced by torch.jit; give the eager module that it was made from")
    lazy = [name for name, tensor in [*model.named_parameters(), *model.named_buffers()] if is_lazy(tensor)]
    if lazy:
        raise ModelError(f"{lazy[0]!r} has no shape yet: run the model once, e.g. model(batch), and load its weights")
    check_values(model)


def check_loss(loss: Loss | None, output: Any) -> Loss | None:
    """The loss, if there is one.

    Raises:
        ConfigError: unless ``loss(output, output)`` is a finite scalar tensor.
    """
    if loss is None:
        return None
    words = "loss=lambda output, reference: (output - reference).square().mean()"
    if not callable(loss):
        raise ConfigError(f"loss={_short(loss)}: a function of two outputs that returns a scalar tensor, e.g. {words}")
    try:
        found = loss(output, output)
    except Exception as error:
        raise ConfigError(f"the loss could not read the model's output: {type(error).__name__}: {error}") from error
    if not isinstance(found, Tensor) or found.numel() != 1 or not bool(torch.isfinite(found).all()):
        shown = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) and found.numel() != 1 else _short(found)
        raise ConfigError(f"the loss of an output and itself is {shown}, not a finite scalar tensor, e.g. {words}")
    return loss


def _short(value: object) -> str:
    text = repr(value).replace("\n", " ")
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_numbers(samples: int | None, batch_size: int, seed: int) -> None:
    """Raises ConfigError for numbers of samples, a batch size or a seed that cannot be."""
    if samples is not None and (isinstance(samples, bool) or not isinstance(samples, int) or samples < 1):
        raise ConfigError(f"samples={samples!r}: a positive whole number, e.g. samples=1600")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(f"batch_size={batch_size!r}: a positive whole number, e.g. batch_size=32")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ConfigError(f"seed={seed!r}: a whole number from 0 to 2**32 - 1")


def check_range(activations: int | None, named: str, plan: Plan | None, plans: Iterable[object]) -> None:
    """Raises ConfigError for a range of inputs where no layer's inputs are rounded.

    Args:
        activations: bits of the layers' inputs.
        named: the range; "mse" is what there is where nothing was said.
        plan: the plan that is carried out, if any.
        plans: of the preset and the exceptions; those that are a LayerPlan may round inputs of their own accord.
    """
    if named == "mse":
        return
    if plan is not None:
        raise ConfigError("plan and activation_range were both given; a plan says where inputs are clipped itself")
    own = any(isinstance(one, LayerPlan) and one.inputs is not None for one in plans)
    if activations is None and not own:
        raise ConfigError(
            f"activation_range={named!r} says where inputs are clipped, and they stay in float; round them: "
            f"quantize(model, data, activations=8, activation_range={named!r})"
        )


def sample_limit(data: Any, samples: int | None) -> int:
    """How many samples are read of data at most: ``samples``, or what is usual for data of its kind."""
    if samples is not None:
        return samples
    if isinstance(data, Samples):
        return len(data)
    if isinstance(data, TokenSet):
        return max(1, _TOKENS // data.ids.shape[1])
    if isinstance(data, Tensor) and data.dim() == 2 and not data.is_floating_point():
        return max(1, _TOKENS // max(1, data.shape[1]))
    return _SAMPLES


def read_samples(data: Any, samples: int | None, batch_size: int, seed: int) -> Samples:
    """The calibration samples, as :func:`corank.quantize` takes them.

    Raises:
        DataError: for empty data, other types, or values that are not finite.
    """
    if isinstance(data, Samples):
        return data
    limit = sample_limit(data, samples)
    if isinstance(data, TokenSet):
        return Samples.of(data.sample(limit, seed).ids, limit, batch_size)
    if isinstance(data, ImageSet):
        chosen = data.sample(limit, seed)
        return Samples.of((images for images, _ in chosen.batches(batch_size)), limit)
    return Samples.of(data, limit, batch_size)
