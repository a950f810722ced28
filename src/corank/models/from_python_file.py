"""Models of the caller's own Python file."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import getattr_static
from pathlib import Path

import torch
from torch import Tensor, nn

from corank.data.preprocessing import Preprocessing
from corank.data.python_function import REFERENCE, OwnFunction, own_function
from corank.data.sampling import Sampling
from corank.errors import ConfigError, ModelError
from corank.models.loader import LoadedModel, Request

__all__ = ["load_python_file"]

ATTRIBUTE, HEARING = "preprocessing", "sampling"
KEYS = ("mean", "std", "size", "crop", "channels", "interpolation")
EXAMPLE = "{'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225), 'size': 224}"


def load_python_file(request: Request) -> LoadedModel:
    """Call a factory, a function without arguments, in a Python file that the caller named.

    The factory returns a module, or a module and how it reads images: a mapping with any of :data:`KEYS`, or a
    :class:`~corank.data.Preprocessing`. The same may stand as an attribute `preprocessing` of the function, of the
    module or of its class. A module that reads recordings has a :class:`~corank.data.Sampling` as its attribute
    `sampling`, or the factory returns one beside it.

    Whether the factory loads trained weights is found by calling it a second time, where neither `pretrained` nor the
    caller's own weights make that needless: weights that come out differently are random.

    Args:
        request: the name is `file.py:factory`; `pretrained` says that the factory loads trained weights.

    Raises:
        ModelError: no such file or function, an error in it, or something that is no `nn.Module`.
    """
    match = REFERENCE.fullmatch(request.name)
    if match is None:
        raise ModelError(f"{request.name!r} names no factory; write file.py:factory")
    factory = own_function(Path(match["path"]).expanduser(), match["function"], ModelError)
    model, said = _made(factory, request.name)
    hearing = said if isinstance(said, Sampling) else getattr_static(model, HEARING, None)
    preprocessing = _preprocessing(factory, model, said, request.name)
    settled = request.pretrained or request.own_weights
    fresh, some = ((), False) if settled else _fresh(factory, model, request.name)
    origin = None if request.own_weights or (fresh and not some) else request.name
    return LoadedModel(
        model,
        preprocessing or Preprocessing(),
        origin,
        fresh=fresh if some else (),
        states_preprocessing=preprocessing is not None,
        sampling=hearing if isinstance(hearing, Sampling) else None,
    )


def _made(factory: OwnFunction, name: str) -> tuple[nn.Module, object]:
    """The module that the factory returns, and what it says beside it."""
    returned = factory()
    model, said = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name} returned {type(returned).__name__}; return a torch.nn.Module, or (module, {EXAMPLE})")
    if said is not None and not isinstance(said, (Mapping, Preprocessing, Sampling)):
        raise ModelError(f"{name} returned a {type(said).__name__} beside the module; return (module, {EXAMPLE})")
    return model, said


def _preprocessing(factory: OwnFunction, model: nn.Module, said: object, name: str) -> Preprocessing | None:
    """How images are read, as the factory says; None where it says nothing."""
    places = (said, getattr_static(factory.function, ATTRIBUTE, None), getattr_static(model, ATTRIBUTE, None))
    stated = next((one for one in places if isinstance(one, (Mapping, Preprocessing))), None)
    if stated is None or isinstance(stated, Preprocessing):
        return stated
    unknown = [str(key) for key in stated if key not in KEYS]
    if unknown:
        raise ModelError(f"{name} says {', '.join(unknown)} of its images; of {', '.join(KEYS)}, e.g. {EXAMPLE}")
    values = {"image_size" if key == "size" else key: value for key, value in stated.items()}
    try:
        for key in ("mean", "std"):
            if values.get(key) is not None:
                values[key] = tuple(float(part) for part in values[key])
        counts = {len(values[key]) for key in ("mean", "std") if values.get(key) is not None}
        if "channels" not in values and len(counts) == 1:
            values["channels"] = counts.pop()
        return Preprocessing(**values)
    except (ConfigError, TypeError, ValueError) as error:
        raise ModelError(f"what {name} says of its images cannot be: {error}; e.g. {EXAMPLE}") from error


def _fresh(factory: OwnFunction, model: nn.Module, name: str) -> tuple[tuple[str, ...], bool]:
    """The weights that a second call gives other values, and whether others keep theirs.

    Norms and biases begin alike in every network, so only tensors of two dimensions or more tell, and of those that are
    equal none whose numbers are all one, as some layers begin.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch.initial_seed() + 1)
        try:
            other = dict(_made(factory, name)[0].named_parameters())
        except ModelError:  # a factory that works once alone proves nothing
            return (), True
    weights = {key: value for key, value in model.named_parameters() if value.dim() > 1}
    differing = tuple(key for key, value in weights.items() if not _same(value, other.get(key)))
    kept = [value for key, value in weights.items() if key not in differing and not _is_constant(value)]
    return differing, bool(kept)


def _is_constant(value: Tensor) -> bool:
    return not value.is_meta and value.numel() > 0 and bool((value == value.flatten()[0]).all())


def _same(value: Tensor, other: Tensor | None) -> bool:
    if other is None or value.shape != other.shape or value.dtype != other.dtype:
        return False
    return value is other or value.is_meta or bool(torch.equal(value, other))
