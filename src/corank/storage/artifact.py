"""The artifact: one ``.safetensors`` file, really small, no pickle, checked whole before anything is built.

See ``docs/artifact.md`` for the layout.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors import SafetensorError
from torch import nn

from corank.autograd import recording
from corank.errors import ArtifactError, ConfigError, ModelError
from corank.files import write_whole
from corank.layers import CodedLayer, as_held, coded_class, pack_layers, remove_norm, replace_module
from corank.layers.effective import computed_before
from corank.layers.meta import materialise
from corank.layers.structure import apply_structure, structure_of
from corank.matrix import Geometry
from corank.models.pruned_file import pruned_file
from corank.storage.artifact_file import TENSOR, header_in, numbers_in
from corank.storage.bits import unpack
from corank.storage.contents import ArtifactContents, contents_of, input_codes, plain_tensors
from corank.storage.entropy_coding import CodeStream, check_coder, decode_contents, encode_contents
from corank.storage.given_model import check_dtype, take_dtype, wrapping
from corank.storage.header import DTYPES, read_run, read_tensors
from corank.storage.model_record import ATTRIBUTE, ModelRecord, run_of
from corank.storage.older_formats import older_header
from corank.storage.placement import blob_sizes
from corank.storage.pruned import load_pruned, other_kind, pruned_in
from corank.storage.stored_layers import slot_tensors

__all__ = ["LARGE", "load", "opened", "read", "read_coded", "save", "serialized"]

LARGE = 1 << 20
"""Weights of a layer from which on ``packed="auto"`` keeps its codes."""
_LONGEST_MESSAGE = 1000


def save(model: nn.Module, path: str | Path, coder: str = "auto") -> int:
    """Writes a quantized or pruned model; the file appears whole or not at all.

    Args:
        model: what :func:`corank.quantize`, :func:`corank.prune` or :func:`corank.load` returned. A pruned one that is
            not quantized is written in float: an ordinary ``.safetensors`` file of its state, its widths beside.
        path: of the ``.safetensors`` file.
        coder: how codes become bytes: "auto" for the smallest of what reads fast and needs no further package,
            "fixed" for fixed width, or one of :data:`~corank.storage.coders.CODERS`. Wherever a coder does not make a
            layer's codes smaller they stay of fixed width. What is loaded is the same, bit for bit.

    Returns:
        The file's size in bytes.

    Raises:
        ModelError: for a model that corank did not quantize.
        OutputError: when the path cannot be written.
        ConfigError: for an unknown coder, one whose package is missing, or what is no model and no path.
    """
    if not isinstance(model, nn.Module) or not isinstance(path, (str, os.PathLike)):
        raise ConfigError(
            f"save(model, path) takes a quantized model, then a path, not {type(model).__name__}, {type(path).__name__}"
        )
    data = serialized(model, coder)
    write_whole(path, data)
    return len(data)


def serialized(model: nn.Module, coder: str = "auto") -> bytes:
    """The bytes of the file that :func:`save` writes; it raises what :func:`save` raises, but for the path."""
    if ATTRIBUTE not in model.__dict__ and structure_of(model):
        check_coder(coder)
        return pruned_file(model)
    run = run_of(model)
    return encode_contents(run, contents_of(model, run), coder)[0].serialize()


def read(path: str | Path) -> tuple[ModelRecord, ArtifactContents]:
    """Reads and checks an artifact without building a model; its codes are of fixed width, however they were coded.

    Raises:
        ArtifactError: for a file that is missing, truncated, altered, of a future version or not an artifact.
        ConfigError: for one whose codes need a package that is not installed.
    """
    return read_coded(path)[:2]


def read_coded(path: str | Path) -> tuple[ModelRecord, ArtifactContents, tuple[CodeStream, ...]]:
    """As :func:`read`, with the coder and size of each run of codes in the file."""
    return _decoded(path, *opened(path))


@recording()
def load(
    path: str | Path,
    model: nn.Module | Callable[[], nn.Module],
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    packed: bool | str = False,
) -> nn.Module:
    """The quantized (or pruned) model of a file, giving bit-identical outputs to the one saved.

    Args:
        path: of the file.
        model: the float network's code, as a module (it is copied; its weights do not matter) or a function without
            arguments that makes one, on the meta device if you like. References found in the file are never executed.
        device: where the result goes.
        dtype: precision of the result; None: that of the model that was saved, with a
            :class:`~corank.errors.CorankWarning` where ``model`` has another one. Codes are the same in any.
        packed: True for inference in little memory: linear layers and embeddings keep their codes and never have a
            float weight, see :func:`corank.to_packed`; outputs then differ by the rounding of float32. "auto": those of
            :data:`LARGE` weights or more, which that makes faster as well. Such a model is not saved again.

    Raises:
        ArtifactError: for an unsound file, or one that does not fit the model.
        ConfigError: when ``model`` is neither, another dtype, or the file's codes need a package that is not installed.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ConfigError(f"load(path, model): the path of a file comes first, not {type(path).__name__}")
    check_dtype(dtype)
    if packed not in (True, False, "auto"):
        raise ConfigError(f'packed={packed!r}: True, False, or "auto" for layers of {LARGE:,} weights or more')
    if (structure := pruned_in(path)) is not None:
        return load_pruned(path, structure, _given(model), dtype).to(device)
    run, stored = opened(path)
    given = _given(model)
    built = given.eval() if given is not model else _copied(given)
    try:
        apply_structure(built, run.structure)
        tensors = read_tensors(stored.header)
        as_held(built, run.layers, {name for shapes in tensors.values() for name in shapes})
        _check_layers(built, run)  # before any code is unpacked: a small file may tell of layers of any size
    except (ArtifactError, ModelError) as error:
        raise _misfit(path, given, error) from error
    contents = _decoded(path, run, stored)[1]
    try:
        take_dtype(built, next(iter(run.layers)), DTYPES[contents.header["dtype"]], dtype)
        _build(built, run, contents)
    except (ArtifactError, ModelError, RuntimeError, TypeError, ValueError) as error:
        raise _misfit(path, built, error) from error
    del contents, stored  # the codes are in the layers
    if packed:
        pack_layers(built, LARGE if packed == "auto" else 0)
    else:
        built.__dict__[ATTRIBUTE] = run
    built.to(device)
    for module in built.modules():
        if isinstance(module, CodedLayer):
            module.compose()
    return built


def _given(model: nn.Module | Callable[[], nn.Module]) -> nn.Module:
    given = model if isinstance(model, nn.Module) else model() if callable(model) else None
    if not isinstance(given, nn.Module):
        raise ConfigError(
            f"load(path, model): a torch.nn.Module or a function that makes one, not {type(model).__name__}"
        )
    return given


def _copied(given: nn.Module) -> nn.Module:
    return copy.deepcopy(given, dict[int, Any](computed_before(given))).eval()


def opened(path: str | Path) -> tuple[ModelRecord, ArtifactContents]:
    """The checked header and the blobs as they are in the file, their SHA-256 checked."""
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            blobs = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(f"{path} cannot be read as an artifact: {error}") from error
    try:
        if "corank" in metadata:
            header = older_header(metadata, blobs)
            return read_run(header), ArtifactContents(header, blobs)
        if names != [TENSOR]:
            raise ArtifactError(other_kind(path, names))
        header, data = header_in(blobs[TENSOR])
        run = read_run(header)
        return run, ArtifactContents(header, numbers_in(data, header, run))
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {_said(error)}") from error


def _decoded(
    path: str | Path, run: ModelRecord, stored: ArtifactContents
) -> tuple[ModelRecord, ArtifactContents, tuple[CodeStream, ...]]:
    """The same with codes of fixed width, all blobs checked against the header."""
    try:
        contents, runs = decode_contents(run, stored)
        _check_blobs(run, contents)
        return run, contents, runs
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {_said(error)}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _misfit(path: str | Path, model: nn.Module, error: Exception) -> ArtifactError:
    return ArtifactError(f"{path} does not fit this {type(model).__name__}: {_said(error)}")


def _said(error: Exception) -> str:
    """The message, without the whole of a name that fills the file."""
    text = str(error)
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."


def _check_blobs(run: ModelRecord, contents: ArtifactContents) -> None:
    packed, scales = blob_sizes(run)
    expected = {"codes": (torch.uint8, packed), "scales": (torch.float16, scales)}
    for kind, shapes in read_tensors(contents.header).items():
        expected[kind] = (DTYPES[kind], sum(math.prod(shape) for shape in shapes.values()))
    for name, (dtype, count) in expected.items():
        blob = contents.blobs.get(name)
        if blob is None or blob.dtype != dtype or blob.numel() != count:
            raise ArtifactError(f"the blob {name!r} is not the {count} numbers that the header needs")
    unknown = sorted(set(contents.blobs) - set(expected))
    if unknown:
        raise ArtifactError(f"the blob {unknown[0][:80]!r} is not in the header")
    if not bool(contents.blobs["scales"].isfinite().all()):
        raise ArtifactError("a scale is not finite")
    _check_streams(run, contents)
    for name, (step, _) in input_codes(run, contents).items():
        if not step > 0:
            raise ArtifactError(f"the inputs of layer {name!r} have a step of {step}")


def _check_streams(run: ModelRecord, contents: ArtifactContents) -> None:
    """Whether what codecs cannot read from just any numbers is sound, before a layer is asked for its weight."""
    if not any(plan.codec.checked_tensors for plan in run.plan.coded().values() if plan.codec is not None):
        return
    for name, tensors in slot_tensors(run, contents).items():
        codec, layer = run.plan.layers[name].codec, run.layers[name]
        assert codec is not None
        slots, (groups, rows, columns) = layer.slots(run.plan.layers[name]), layer.shape
        streams = {
            key: unpack(tensors[key], slots[key].bits, slots[key].count)
            for key in codec.checked_tensors
            if key in slots
        }
        try:
            codec.check(streams, groups * rows, columns)
        except ArtifactError as error:
            raise ArtifactError(f"layer {name!r}: {error}") from error


def _check_layers(model: nn.Module, run: ModelRecord) -> None:
    """Whether the model has every layer of the file, each once, of that shape."""
    modules = dict(model.named_modules(remove_duplicate=False))
    seen: dict[nn.Module, str] = {}
    for name, layer_run in run.layers.items():
        layer = modules.get(name)
        if layer is None or layer is model:
            raise ArtifactError(f"it has no layer {name!r}{wrapping(name, modules)}")
        if layer in seen:
            raise ArtifactError(f"its layer {name!r} is the layer {seen[layer]!r}")
        seen[layer] = name
        coded_class(layer, seen_alike=True)
        shape = Geometry.of(layer).matrix_shape
        if shape != layer_run.shape:
            raise ArtifactError(f"layer {name!r} is {shape} there and {layer_run.shape} in the file")
        shifts, channels = run.plan.layers[name].input_shifts, Geometry.of(layer).channels
        if shifts not in (0, 1, channels):
            raise ArtifactError(
                f"layer {name!r} has {channels} channels there, and {shifts} shifts of them in the file"
            )
    for name in run.folded:
        if name not in modules:
            raise ArtifactError(f"it has no norm {name!r}")


def _build(model: nn.Module, run: ModelRecord, contents: ArtifactContents) -> None:
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in run.folded:
        remove_norm(model, modules[name])
    tensors = read_tensors(contents.header)
    biased, stored = {name for shapes in tensors.values() for name in shapes}, slot_tensors(run, contents)
    for name, layer_run in run.layers.items():
        layer, plan = modules[name], run.plan.layers[name]
        assert plan.codec is not None
        kind = coded_class(layer, seen_alike=True)
        coded = kind(layer, plan.codec, layer_run.rank(plan), plan.adapter_bits, plan.inputs)
        coded.keep_bias(f"{name}.bias" in biased).keep_shifts(plan.input_shifts)
        coded._buffers.update({slot: tensor.clone() for slot, tensor in stored[name].items()})
        replace_module(model, layer, coded)
    materialise(model)
    _fill_plain(model, tensors, contents)


def _fill_plain(model: nn.Module, tensors: dict[str, dict[str, tuple[int, ...]]], contents: ArtifactContents) -> None:
    wanted = plain_tensors(model)
    holders = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for kind, shapes in tensors.items():
        parts = iter(contents.blobs[kind].split([math.prod(shape) for shape in shapes.values()]))
        for name, shape in shapes.items():
            if name not in wanted:
                raise ArtifactError(f"it has no tensor {name!r}")
            own = wanted.pop(name)
            if tuple(own.shape) != shape or own.is_floating_point() != DTYPES[kind].is_floating_point:
                raise ArtifactError(
                    f"tensor {name!r} is {own.dtype} {tuple(own.shape)} there, {kind} {shape} in the file"
                )
            with torch.no_grad():
                holders[name].copy_(next(parts).reshape(shape))
    if wanted:
        raise ArtifactError(f"the file lacks {len(wanted)} of its tensors, first {next(iter(wanted))!r}")
