"""The public call that looks inside: what a network does with changes, and what quantization did to it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from corank.analysis.interaction import interaction
from corank.analysis.lipschitz import lipschitz
from corank.analysis.spectral import spectral
from corank.analysis.straight_through import straight_through
from corank.autograd import recording
from corank.calibration import Context
from corank.compiled import uncompiled
from corank.config import check_progress
from corank.devices import device_of
from corank.errors import ConfigError, ModelError
from corank.layers import CodedLayer
from corank.precision import exact_float32
from corank.progress import Progress
from corank.storage.model_record import ATTRIBUTE, ModelRecord
from corank.verbs.arguments import check_kinds, check_numbers
from corank.verbs.opening import ContextOptions, open_context
from corank.verbs.training_data import read_labelled

__all__ = ["ANALYSES", "analyse", "check_analysis"]


@dataclass(frozen=True)
class _Question:
    """One analysis: what answers it, of (context, labels, quantized network or None, bits); samples that it looks "
    "at."""

    answer: Callable[[Context, Tensor | None, nn.Module | None, int], dict[str, Any]]
    samples: int


ANALYSES: Mapping[str, _Question] = MappingProxyType(
    {
        "lipschitz": _Question(lambda context, _labels, quantized, bits: lipschitz(context, quantized, bits), 256),
        "spectral": _Question(spectral, 64),
        "interaction": _Question(interaction, 256),
        "straight-through": _Question(straight_through, 32),
    }
)
"""What can be asked."""


@uncompiled()
@recording()
@exact_float32()
def analyse(
    model: nn.Module,
    data: Any,
    what: str = "lipschitz",
    *,
    quantized: nn.Module | None = None,
    bits: int = 3,
    samples: int | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Looks inside a network, and at what quantization did to it; changes nothing.

    Args:
        model: the float network.
        data: as for :func:`corank.train`: labels are used where there are any, else the classes that the float network
            chooses itself.
        what: "lipschitz" (operator norms, bounds, and which layers hurt when they are coded), "spectral" (which
            frequencies of images count), "interaction" (how many directions each layer uses), "straight-through" (how
            far gradients through rounding are off).
        quantized: what :func:`corank.quantize`, :func:`corank.train` or :func:`corank.load` made of it. None: layers
            are rounded to nearest where something is to be compared.
        bits: of that rounding, 1 to 8.
        samples: at most; None: 256, "spectral" 64, "straight-through" 32.
        seed: draws samples, positions and roundings.
        device: "auto" (CUDA if there is any, else CPU) or a torch device.
        progress: called with (what, done, total).

    Returns:
        A plain record, that JSON can hold: ``what``, one entry for each layer under ``layers``, ``no_theory`` (layers
        that nothing can be said of, each with the reason), ``notes``, and what docs/analyse.md says of each.

    Raises:
        ConfigError, ModelError, DataError: for bad input.
    """
    started = time.perf_counter()
    check_analysis(what, bits)
    check_kinds(model, device=device)
    if quantized is not None:
        check_kinds(quantized)
    check_numbers(samples, 1, seed)
    check_progress(progress)
    _check_pair(model, quantized)
    count = samples or ANALYSES[what].samples
    inputs, labels = read_labelled(data, count, seed, count)(0)
    options = ContextOptions(count, 32, seed, device, _folds(quantized), None, progress)
    context = open_context(model, inputs if isinstance(inputs, Tensor) else [inputs], options)
    if quantized is not None and device_of(quantized) != context.device:
        quantized = copy.deepcopy(quantized).to(context.device)
    found = ANALYSES[what].answer(context, labels, quantized, bits)
    context.progress("analysed", 1, 1)
    return {"what": what, **found, "seed": seed, "seconds": time.perf_counter() - started}


def check_analysis(what: str, bits: int) -> None:
    """Raises ConfigError for a question that is not known, or a width that cannot be."""
    if what not in ANALYSES:
        raise ConfigError(f"what={what!r}: one of {', '.join(ANALYSES)}, e.g. analyse(model, data, what='lipschitz')")
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 8:
        raise ConfigError(f"bits={bits!r}: a whole number from 1 to 8, e.g. analyse(model, data, bits=3)")


def _check_pair(model: nn.Module, quantized: nn.Module | None) -> None:
    if _is_coded(model):
        raise ModelError(
            "the model is quantized already; give the float network first: analyse(original, data, quantized=model)"
        )
    if quantized is not None and not _is_coded(quantized):
        raise ModelError(
            "quantized= holds no coded layer; give what corank.quantize or corank.load returned, or leave it out"
        )


def _is_coded(model: nn.Module) -> bool:
    return any(isinstance(module, CodedLayer) for module in model.modules())


def _folds(quantized: nn.Module | None) -> bool:
    """Whether norms are folded into the float layers, so that they are those that were coded."""
    run = None if quantized is None else quantized.__dict__.get(ATTRIBUTE)
    return bool(run.folded) if isinstance(run, ModelRecord) else True
