"""The float network that an artifact is loaded into: its precision beside the file's, and wrappers in its names."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from corank.errors import ConfigError, CorankWarning
from corank.layers import module_named

__all__ = ["check_dtype", "take_dtype", "wrapping"]

_ALLOWED = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def check_dtype(dtype: Any) -> None:
    """Raises ConfigError unless a model can be loaded in that precision; None is the file's own."""
    if dtype is not None and dtype not in _ALLOWED:
        raise ConfigError(f"dtype={dtype!r}: {', '.join(map(str, _ALLOWED))}, or None for the file's own")


def take_dtype(model: nn.Module, layer: str, stored: torch.dtype, asked: torch.dtype | None) -> None:
    """Casts a float network, in place, to the precision of the network in the file, or that asked for.

    Only in the file's precision the outputs are those of the model that was saved, bit for bit. A network whose coded
    layers have that precision already stays as it is, so that one of several precisions keeps them.

    Args:
        model: the float network.
        layer: the name of its first coded layer.
        stored: the precision in the file.
        asked: what the caller wants; None for the file's, with a warning where the network has another one.
    """
    weight = module_named(model, layer).weight
    assert isinstance(weight, Tensor)
    if asked is not None:
        _cast(model, asked)
    elif weight.dtype != stored:
        warnings.warn(
            f"the file holds a network of {stored}, and the one given is {weight.dtype}: the loaded one computes in "
            f"{stored}, as it was quantized; load(..., dtype={weight.dtype}) gives it in the other precision, and "
            f"dtype={stored} keeps it without this warning",
            CorankWarning,
            stacklevel=3,
        )
        _cast(model, stored)


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    """In place; what transformers' modules compute for themselves and keep in no file, such as the frequencies of
    rotations, stays in the precision that transformers computes it in."""
    kept = [
        (module._buffers, name, buffer)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if name in module._non_persistent_buffers_set and type(module).__module__.startswith("transformers.")
    ]
    model.to(dtype)
    for buffers, name, buffer in kept:
        buffers[name] = buffer


def wrapping(name: str, modules: Mapping[str, nn.Module]) -> str:
    """What to do where the layer is there, but for the name of a wrapper in its path."""
    for part, wrapper in (("module", "torch.nn.DataParallel"), ("_orig_mod", "torch.compile")):
        parts = name.split(".")
        if part in parts and ".".join(one for one in parts if one != part) in modules:
            return (
                f"; the model in the file was wrapped by {wrapper}: wrap this one as well, or quantize the one inside"
            )
        if name in {".".join(one for one in other.split(".") if one != part) for other in modules}:
            return f"; this model is wrapped by {wrapper}, that in the file was not: give the one inside"
    return ""
