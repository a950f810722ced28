"""Supernets on disk: float weights and steps in one ``.safetensors`` file, no pickle, checked before it is built."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from corank.errors import ArtifactError, ConfigError, CorankError, ModelError
from corank.files import write_whole
from corank.models.elastic import MobileSupernet
from corank.models.elastic_shape import ElasticShape
from corank.training.elastic import Steps
from corank.training.shared_step import WIDTHS, SharedStepInputs, SharedStepWeight
from corank.training.subnets import choose, extreme, layers_of, space_of

__all__ = ["SUPERNET", "SupernetRecord", "load_supernet", "save_supernet"]

SUPERNET = "corank_supernet"  # where a supernet carries its record, and what a file's header is called
_VERSION = 1
_KEY = re.compile(r"shared|\d{1,7}-\d{1,7}-\d")  # of steps
_MOST_NOTE = 10_000_000


@dataclass(frozen=True)
class SupernetRecord:
    """How a supernet was trained; found on it as ``model.corank_supernet``.

    Attributes:
        bits: of weights and inputs; None for a float one.
        inherited: bits of the supernet that it began from; None where that was in float.
        iterations: steps of the last training.
        seed: of its draws.
        seconds: that it took; None once read from a file.
        history: one entry a step: "loss" over all subnets, "largest" of that alone; empty once read from a file.
    """

    bits: int | None
    inherited: int | None
    iterations: int
    seed: int
    seconds: float | None = None
    history: tuple[Mapping[str, float], ...] = ()


def save_supernet(model: nn.Module, path: str | Path) -> int:
    """Writes a supernet that :func:`corank.train_supernet` returned; the file appears whole or not at all.

    Returns:
        The file's size in bytes. It holds float weights: a supernet is what files are made of.

    Raises:
        ModelError: for any other model. OutputError: when the path cannot be written.
    """
    record = model.__dict__.get(SUPERNET) if isinstance(model, nn.Module) else None
    if not isinstance(record, SupernetRecord):
        raise ModelError(
            f"this {type(model).__name__} is no trained supernet; save what corank.train_supernet returned"
        )
    steps = {
        name: {key: _told(cast(Steps, one)) for key, one in layer.steps.items()} for name, layer in layers_of(model)
    }
    done = {key: value for key, value in asdict(record).items() if key not in ("history", "seconds")}
    network = model.shape.reference if isinstance(model, MobileSupernet) else None
    note = json.dumps({"version": _VERSION, "network": network, "record": done, "steps": steps})
    tensors = {name: one.detach().cpu().clone().contiguous() for name, one in model.state_dict().items()}
    data = safetensors.torch.save(tensors, metadata={SUPERNET: note})
    write_whole(path, data)
    return len(data)


def load_supernet(path: str | Path, model: nn.Module | Callable[[], nn.Module] | None = None) -> nn.Module:
    """A supernet as it was saved, its largest subnet chosen.

    Args:
        path: of the file.
        model: the network's code, as for :func:`corank.load`: a float supernet of the same choices, or a function that
            makes one; None where the file names an ``elastic:`` network, which is made anew.

    Raises:
        ArtifactError: for a file that is not sound, or does not fit the model.
        ConfigError, ModelError: where the model is needed, or is no supernet.
    """
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            note = (file.metadata() or {}).get(SUPERNET)
            if note is None:
                raise ArtifactError(f"{path} is no supernet; corank.save_supernet writes one")
            told = _read(note)
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            own = _made(path, told, model)
            _check(own, told["steps"], shapes)
            tensors = {name: file.get_tensor(name) for name in shapes}
        _fill(own, tensors)
    except ArtifactError as error:
        raise ArtifactError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except (ConfigError, ModelError):
        raise
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(f"{path} cannot be read as a supernet: {str(error)[:300]}") from error
    choose(own, extreme(space_of(own), largest=True))
    own.__dict__[SUPERNET] = told["record"]
    return own.eval()


def _told(steps: Steps) -> list[Any]:
    inputs = None if steps.inputs is None else steps.inputs.quantizer()
    return [steps.weight.bits, None if inputs is None else inputs.bits, inputs is not None and inputs.signed]


def _read(note: str) -> dict[str, Any]:
    """The header, its fields of the kinds that they must be."""
    if len(note) > _MOST_NOTE:
        raise ArtifactError("its header is too long")
    try:
        told = json.loads(note)
        version, network, record, steps = told["version"], told["network"], told["record"], told["steps"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise ArtifactError(f"its header cannot be read: {str(error)[:100]}") from error
    if version != _VERSION:
        raise ArtifactError(f"a supernet of format {str(version)[:20]}; this version reads {_VERSION}")
    if not (network is None or isinstance(network, str)) or not isinstance(steps, dict):
        raise ArtifactError("its header is not one of a supernet")
    numbers = {key: record.get(key) for key in ("bits", "inherited", "iterations", "seed")}
    if any(
        type(value) is not int for key, value in numbers.items() if value is not None or key in ("iterations", "seed")
    ):
        raise ArtifactError("its record holds what is no whole number")
    for layer in steps.values():
        for key, one in layer.items():
            if not _KEY.fullmatch(key) or not _is_step(one):
                raise ArtifactError(f"it has steps {key[:40]!r} of {str(one)[:60]}, which cannot be")
    return {"network": network, "record": SupernetRecord(**numbers), "steps": steps}


def _is_step(one: Any) -> bool:
    if not isinstance(one, list) or len(one) != 3:
        return False
    weight, inputs, signed = one
    return (
        type(weight) is int
        and weight in WIDTHS
        and (inputs is None or (type(inputs) is int and inputs in WIDTHS))
        and type(signed) is bool
    )


def _made(path: str | Path, told: dict[str, Any], model: nn.Module | Callable[[], nn.Module] | None) -> nn.Module:
    """The network, on the meta device: nothing is allocated before its shapes are those of the file."""
    if model is not None:
        given = model if isinstance(model, nn.Module) else model() if callable(model) else None
        if not isinstance(given, nn.Module):
            raise ConfigError(
                f"load_supernet(path, model): a supernet, or a function that makes one, not {model!r:.60}"
            )
        return _copied(given)
    if told["network"] is None:
        raise ConfigError(f"{path} does not name its network: load_supernet(path, model) with the supernet's code")
    try:
        shape = ElasticShape.of(told["network"].removeprefix("elastic:"))
    except CorankError as error:
        raise ArtifactError(f"the network that it names cannot be: {str(error)[:200]}") from error
    with torch.device("meta"):
        return MobileSupernet(shape)


def _copied(model: nn.Module) -> nn.Module:
    """A copy on the meta device, without steps."""
    space_of(model)
    memo = {id(one): one.to("meta") for one in model.buffers()}
    memo |= {id(one): nn.Parameter(one.detach().to("meta")) for one in model.parameters()}
    own = copy.deepcopy(model, memo)
    for _, layer in layers_of(own):
        layer.steps.clear()
    return own


def _check(own: nn.Module, steps: Mapping[str, Mapping[str, Any]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Puts steps in place; raises ArtifactError for tensors of other names or shapes than the network's."""
    layers = dict(layers_of(own))
    for name, given in steps.items():
        if name not in layers:
            raise ArtifactError(f"the network has no layer {name[:80]!r}")
        for key, (weight, inputs, signed) in given.items():
            one = torch.ones((), dtype=torch.float32)
            rounds = None if inputs is None else SharedStepInputs(inputs, one, signed)
            layers[name].steps[key] = Steps(SharedStepWeight(weight, one), rounds)
    wanted = {name: tuple(one.shape) for name, one in own.state_dict().items()}
    for name in sorted({*wanted, *shapes}):
        if wanted.get(name) != shapes.get(name):
            there, here = _shown(shapes.get(name)), _shown(wanted.get(name))
            raise ArtifactError(f"tensor {name[:80]!r} is {there} in the file, {here} in the network")


def _shown(shape: tuple[int, ...] | None) -> str:
    return "not" if shape is None else str(shape) if math.prod(shape) != 1 else "a number"


def _fill(own: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    for name, one in tensors.items():
        kind = torch.int64 if name.endswith("num_batches_tracked") else torch.float32
        if one.dtype != kind:
            raise ArtifactError(f"tensor {name!r} is {one.dtype}, not {kind}")
        if one.is_floating_point() and not bool(one.isfinite().all()):
            raise ArtifactError(f"tensor {name!r} holds NaN or infinite values")
        if name.rpartition(".")[2] in ("scale", "step") and not bool((one > 0).all()):
            raise ArtifactError(f"the step {name!r} is not above zero")
    own.load_state_dict(dict(tensors), assign=True)
