"""What the public call was given: checked, and its samples read."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from corank.calibration import Samples
from corank.data import ImageSet, TokenSet
from corank.errors import BudgetError, ConfigError
from corank.plan import Plan
from corank.quantize_size import parse_size

__all__ = ["check_request", "read_samples"]

_SAMPLES, _TOKENS = 1600, 102_400  # of images or the like, and of token sequences, unless the caller says otherwise


def check_request(
    bits: int | None,
    budget: float | None,
    size: int | str | None,
    samples: int | None,
    seed: int,
    activations: int | None,
    plan: Plan | None,
) -> None:
    """Raises ConfigError or BudgetError for what no model can be asked for."""
    if bits is not None and (isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 8):
        raise ConfigError(f"bits={bits!r}: a whole number from 1 to 8, e.g. quantize(model, data, bits=4)")
    if budget is not None and size is not None:
        raise ConfigError("budget and size were both given; choose one")
    if budget is not None and not 0 <= budget <= 32:
        raise BudgetError(f"budget={budget!r}: extra bits per weight, from 0 (no adapters), e.g. budget=0.25")
    if size is not None:
        parse_size(size)
    if samples is not None and (isinstance(samples, bool) or not isinstance(samples, int) or samples < 1):
        raise ConfigError(f"samples={samples!r}: a positive whole number, e.g. samples=1600")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ConfigError(f"seed={seed!r}: a whole number from 0 to 2**32 - 1")
    _check_activations(activations, plan)


def _check_activations(activations: int | None, plan: Plan | None) -> None:
    """Raises ConfigError unless the layers' inputs can have that width."""
    if activations is None:
        return
    if plan is not None:
        raise ConfigError("plan and activations were both given; a plan says its layers' inputs itself")
    if type(activations) is not int or not 2 <= activations <= 8:
        raise ConfigError(
            f"activations={activations!r}: 2 to 8 bits, e.g. quantize(model, data, bits=4, activations=8)"
        )


def read_samples(data: Any, samples: int | None, batch_size: int, seed: int) -> Samples:
    """The calibration samples, as :func:`corank.quantize` takes them.

    Raises:
        DataError: for empty data, other types, or values that are not finite.
    """
    if isinstance(data, TokenSet):
        limit = samples or max(1, _TOKENS // data.ids.shape[1])
        return Samples.of(data.sample(limit, seed).ids, limit, batch_size)
    limit = samples or _SAMPLES
    if isinstance(data, ImageSet):
        chosen = data.sample(limit, seed)
        return Samples.of((images for images, _ in chosen.batches(batch_size)), limit)
    if isinstance(data, Tensor) and samples is None and data.dim() == 2 and not data.is_floating_point():
        limit = max(1, _TOKENS // max(1, data.shape[1]))
    return Samples.of(data, limit, batch_size)
