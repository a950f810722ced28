"""The artifact: one ``.safetensors`` file, really small, no pickle, checked whole before anything is built.

See ``docs/artifact.md`` for the layout.
"""

from __future__ import annotations

import copy
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from corank.errors import ArtifactError, ConfigError, CorankError, OutputError
from corank.layers import CodedLayer, coded_class, remove_norm, replace_module
from corank.matrix import Geometry
from corank.plan import Plan
from corank.storage.bits import packed_bytes
from corank.storage.coding import CODED_FORMAT, CodedRun, decode_contents, encode_contents
from corank.storage.contents import FORMAT, Contents, contents_of, digest, input_codes, plain_tensors
from corank.storage.run import ATTRIBUTE, LayerRun, Run, run_of

__all__ = ["load", "read", "read_coded", "save", "serialized"]

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float16, torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.int32, torch.int16,
        torch.int8, torch.uint8, torch.bool,
    )
}  # fmt: skip


def save(model: nn.Module, path: str | Path, coder: str = "auto") -> int:
    """Writes a quantized model; the file appears whole or not at all.

    Args:
        model: what :func:`corank.quantize` or :func:`corank.load` returned.
        path: of the ``.safetensors`` file.
        coder: how codes become bytes: "auto" for the smallest of what reads fast and needs no further package,
            "fixed" for fixed width, or one of :data:`~corank.storage.coders.CODERS`. Wherever a coder does not make a
            layer's codes smaller they stay of fixed width. What is loaded is the same, bit for bit.

    Returns:
        The file's size in bytes.

    Raises:
        ModelError: for a model that corank did not quantize.
        OutputError: when the path cannot be written.
        ConfigError: for an unknown coder, or one whose package is missing.
    """
    data = serialized(model, coder)
    target = Path(path)
    try:
        descriptor, scratch = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            os.chmod(scratch, 0o644)
            os.replace(scratch, target)
        except BaseException:
            os.unlink(scratch)
            raise
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    return len(data)


def serialized(model: nn.Module, coder: str = "auto") -> bytes:
    """The bytes of the file that :func:`save` writes; it raises what :func:`save` raises, but for the path."""
    run = run_of(model)
    return encode_contents(run, contents_of(model, run), coder)[0].serialize()


def read(path: str | Path) -> tuple[Run, Contents]:
    """Reads and checks an artifact without building a model; its codes are of fixed width, however they were coded.

    Raises:
        ArtifactError: for a file that is missing, truncated, altered, of a future version or not an artifact.
        ConfigError: for one whose codes need a package that is not installed.
    """
    return read_coded(path)[:2]


def read_coded(path: str | Path) -> tuple[Run, Contents, tuple[CodedRun, ...]]:
    """As :func:`read`, with the coder and size of each run of codes in the file."""
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            blobs = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"{path} cannot be read as an artifact: {error}") from error
    text = metadata.get("corank")
    if text is None:
        raise ArtifactError(
            f"{path} is a safetensors file but not a corank artifact; write one with corank.save(model, path)"
        )
    try:
        header = json.loads(text)
        version = header["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{path}: the header is not sound: {error}") from error
    if version not in (FORMAT, CODED_FORMAT):
        raise ArtifactError(
            f"{path} is of format {version!r}; this version of corank reads formats {FORMAT} and {CODED_FORMAT}; "
            "upgrade corank"
        )
    if digest(text, blobs) != metadata.get("sha256"):
        raise ArtifactError(f"{path} was altered: its SHA-256 does not match; copy the file anew")
    try:
        run = _run(header)
        contents, runs = decode_contents(run, Contents(header, blobs))
        _check_blobs(run, contents)
        return run, contents, runs
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise ArtifactError(f"{path}: the header is not sound: {error}") from error


def load(path: str | Path, model: nn.Module | Callable[[], nn.Module], device: str | torch.device = "cpu") -> nn.Module:
    """The quantized model of an artifact, giving bit-identical outputs to the one saved.

    Args:
        path: of the file.
        model: the float network's code, as a module (it is copied; its weights do not matter) or a function without
            arguments that makes one. References found in the file are never executed.
        device: where the result goes.

    Raises:
        ArtifactError: for an unsound file, or one that does not fit the model.
        ConfigError: when ``model`` is neither.
    """
    run, contents = read(path)
    given = model if isinstance(model, nn.Module) else model() if callable(model) else None
    if not isinstance(given, nn.Module):
        raise ConfigError(
            f"load(path, model): a torch.nn.Module or a function that makes one, not {type(model).__name__}"
        )
    built = copy.deepcopy(given).eval() if isinstance(model, nn.Module) else given.eval()
    try:
        _build(built, run, contents)
    except ArtifactError as error:
        raise ArtifactError(f"{path} does not fit this {type(built).__name__}: {error}") from error
    except (
        CorankError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
        OverflowError,
    ) as error:
        raise ArtifactError(f"{path} does not fit this {type(built).__name__}: {error}") from error
    built.__dict__[ATTRIBUTE] = run
    built.to(device)
    for module in built.modules():
        if isinstance(module, CodedLayer):
            module.compose()
    return built


def _run(header: Mapping[str, Any]) -> Run:
    try:
        plan = Plan.from_json(header["plan"])
    except ConfigError as error:
        raise ArtifactError(f"the header is not sound: {error}") from error
    layers = {}
    for name, (groups, rows, columns, error) in header["layers"].items():
        if not all(isinstance(size, int) and 0 < size < 1 << 31 for size in (groups, rows, columns)):
            raise ValueError(f"layer {name!r} has a shape of {groups!r} x {rows!r} x {columns!r}")
        layers[name] = LayerRun((groups, rows, columns), float(error))
    if set(layers) != set(plan.coded()) or not layers:
        raise ValueError("the plan and the list of layers differ")
    return Run(
        plan=plan,
        layers=layers,
        folded=tuple(map(str, header["folded"])),
        skipped={str(name): str(reason) for name, reason in header["skipped"].items()},
        model=header["model"],
        preset=header["preset"],
        search=header["search"],
        bits=header["bits"],
        budget=header["budget"],
        activations=header.get("activations"),
        seed=header["seed"],
        iterations=header["iterations"],
    )


def _build(model: nn.Module, run: Run, contents: Contents) -> None:
    dtype = _DTYPES[contents.header["dtype"]]
    if dtype != torch.float32:
        model.to(dtype)
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in run.folded:
        if name not in modules:
            raise ArtifactError(f"it has no norm {name!r}")
        remove_norm(model, modules[name])
    index = {name for entries in contents.header["tensors"].values() for name, _ in entries}
    codes, scales = _Reader(contents.blobs["codes"]), _Reader(contents.blobs["scales"])
    for name, layer_run in run.layers.items():
        if name not in modules:
            raise ArtifactError(f"it has no layer {name!r}")
        layer, plan = modules[name], run.plan.layers[name]
        shape = Geometry.of(layer).matrix_shape
        if shape != layer_run.shape or plan.codec is None:
            raise ArtifactError(f"layer {name!r} is {shape} there and {layer_run.shape} in the file")
        kind = coded_class(layer, seen_alike=True)
        coded = kind(layer, plan.codec, layer_run.rank(plan), plan.adapter_bits, f"{name}.bias" in index, plan.inputs)
        for slot_name, slot in coded.slots().items():
            size = slot.count if slot.scale else packed_bytes(slot.count, slot.bits)
            coded._buffers[slot_name] = (scales if slot.scale else codes).take(size)
        replace_module(model, layer, coded)
    _fill_plain(model, contents)


def _check_blobs(run: Run, contents: Contents) -> None:
    packed = scales = 0
    for name, layer in run.layers.items():
        plan = run.plan.layers[name]
        for slot in layer.slots(plan).values():
            packed += 0 if slot.scale else packed_bytes(slot.count, slot.bits)
            scales += slot.count if slot.scale else 0
    for name, dtype, expected in (("codes", torch.uint8, packed), ("scales", torch.float16, scales)):
        blob = contents.blobs.get(name)
        if blob is None or blob.dtype != dtype or blob.dim() != 1 or blob.numel() != expected:
            raise ArtifactError(f"the blob {name!r} is not the {expected} numbers that the plan needs")
    for name, (step, _) in input_codes(run, contents).items():
        if not 0 < step < math.inf:
            raise ArtifactError(f"the inputs of layer {name!r} have a step of {step}")


def _fill_plain(model: nn.Module, contents: Contents) -> None:
    wanted = plain_tensors(model)
    holders = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for kind, entries in contents.header["tensors"].items():
        blob = contents.blobs[kind]
        if blob.dtype != _DTYPES[kind]:
            raise ArtifactError(f"the blob {kind!r} holds {blob.dtype}")
        reader = _Reader(blob)
        for name, shape in entries:
            if name not in wanted:
                raise ArtifactError(f"it has no tensor {name!r}")
            if list(wanted.pop(name).shape) != shape:
                raise ArtifactError(f"tensor {name!r} has another shape")
            value = reader.take(math.prod(shape)).reshape(shape)
            with torch.no_grad():
                holders[name].copy_(value)
    if wanted:
        raise ArtifactError(f"the file lacks {len(wanted)} of its tensors, first {next(iter(wanted))!r}")


class _Reader:
    """Hands out consecutive parts of a blob."""

    def __init__(self, blob: Tensor) -> None:
        self._blob, self._at = blob, 0

    def take(self, count: int) -> Tensor:
        if count < 0 or self._at + count > self._blob.numel():
            raise ArtifactError("a blob is shorter than its index")
        self._at += count
        return self._blob[self._at - count : self._at].clone()
