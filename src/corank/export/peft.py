"""A float base and a LoRA checkpoint, as the library peft loads them; the way back is in ``peft_import.py``.

The base holds the values of the codes, the checkpoint the adapters: peft computes ``conv(x, values) + left(right(x))``.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from corank.autograd import recording
from corank.codecs import Uniform
from corank.errors import ArtifactError, ConfigError, CorankError, ModelError, OutputError
from corank.export.check import Arrays, Checked, check, expected_of, rounds_inputs
from corank.export.example import outputs_of
from corank.export.result import ExportResult
from corank.export.to_torch import to_float
from corank.files import staged
from corank.inspect import inspect
from corank.layers import CodedLayer, coded_class, give_back_float, module_named, names_of, remove_norm, replace_module
from corank.layers.structure import apply_structure
from corank.matrix import Geometry
from corank.storage.model_record import ATTRIBUTE, ModelRecord, run_of

__all__ = ["PeftLayers", "base_name", "export_peft", "load_peft_base", "need_peft", "peft_base", "peft_layers"]

ADAPTER, CONFIG, BASE = "adapter_model.safetensors", "adapter_config.json", "base/model.safetensors"
PREFIX = "base_model.model."
_METADATA = "corank_base"
_ROUNDED = "inputs are rounded in corank and float in peft: outputs agree with corank.to_float(model)"


@dataclass(frozen=True)
class PeftLayers:
    """What becomes of the adapters of a quantized model.

    Attributes:
        held: name to rank of the layers whose adapters peft holds.
        merged: name to reason of the layers whose adapters it cannot hold; they are added to the base's weight.
    """

    held: Mapping[str, int]
    merged: Mapping[str, str]


def peft_layers(model: nn.Module) -> PeftLayers:
    """Which adapters peft holds, and which not, with the reason. Layers of rank 0 are in neither.

    Raises:
        ModelError: for a model that corank did not quantize.
    """
    run, names = run_of(model), names_of(model)
    held: dict[str, int] = {}
    merged: dict[str, str] = {}
    for name in run.layers:
        layer = module_named(model, name)
        assert isinstance(layer, CodedLayer)
        reason = refusal(layer, names[id(layer)])
        if layer.rank and reason is None:
            held[name] = layer.rank
        elif layer.rank and reason is not None:
            merged[name] = reason
    return PeftLayers(held, merged)


def refusal(layer: CodedLayer, names: list[str]) -> str | None:
    """Why peft cannot hold adapters of that layer, which goes by ``names``; None where it can."""
    geometry = layer.geometry
    dilated = any(step > 1 and size > 1 for step, size in zip(geometry.dilation, geometry.kernel, strict=True))
    reasons = {
        "peft adapts linear layers and convolutions alone": not isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)),
        "peft has no adapters of transposed convolutions": geometry.transposed,
        "peft's adapters of convolutions have no groups": geometry.groups > 1,
        "peft's adapters of convolutions have no dilation": dilated and not geometry.transposed,
        f"peft's adapters pad with zeros, and the layer pads by {geometry.padding_mode!r}": (
            geometry.padding_mode != "zeros"
        ),
        f"it is one layer under {len(names)} names, of which peft adapts one": len(names) > 1,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def peft_base(model: nn.Module) -> nn.Module:
    """The base that goes with the checkpoint of :func:`export_peft`: a float32 copy on the CPU, in evaluation mode.

    Layers whose adapters peft holds have the values of their codes as weights, all others their composed weights.
    ``peft.PeftModel.from_pretrained`` changes what it is given: make one base for each use.

    Raises:
        ModelError: for a model that corank did not quantize.
    """
    held, name = peft_layers(model).held, base_name(model)
    plain = copy.deepcopy(model).cpu().float().eval()
    for layer_name, layer in list(plain.named_modules()):
        if not isinstance(layer, CodedLayer):
            continue
        float_layer = layer.to_float()
        if layer_name in held:
            values = layer.geometry.from_matrix(layer.code().weight.decode()).contiguous()
            float_layer.register_parameter("weight", nn.Parameter(values))
        replace_module(plain, layer, float_layer)
    give_back_float(plain)
    plain.__dict__.pop(ATTRIBUTE, None)
    plain.__dict__["name_or_path"] = name
    return plain


def base_name(model: nn.Module) -> str:
    """A name of the base of a quantized model: two bases of one name are equal, whatever the adapters peft holds.

    peft keeps it as ``base_model_name_or_path``, so an adapter tells which base it was trained on. It is no name that
    a hub could have: peft looks for nothing there.
    """
    run, names, total = run_of(model), names_of(model), hashlib.sha256()
    plain = copy.deepcopy(model).cpu().float()
    apart = set()
    for name in run.layers:
        layer = module_named(model, name)
        if isinstance(layer, CodedLayer) and refusal(layer, names[id(layer)]) is None:
            apart |= {f"{name}.{slot}" for slot in layer.slots() if slot.startswith(("left_", "right_"))}
    for name, tensor in sorted(plain.state_dict().items()):
        if name not in apart:
            total.update(f"\0{name}:{tensor.dtype}:{list(tensor.shape)}\0".encode())
            total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"corank:{total.hexdigest()[:16]}"


@recording()
def export_peft(
    model: nn.Module, folder: str | Path, example: Any = None, *, tolerance: float | None = None
) -> ExportResult:
    """Writes ``folder`` for ``peft.PeftModel.from_pretrained(base, folder)``, and the base beside it.

    ``adapter_model.safetensors`` and ``adapter_config.json`` hold the adapters, scaled by 1; ``base/model.safetensors``
    holds the float base, norms folded, which :func:`load_peft_base` or :func:`peft_base` turns into a module. Adapters
    that peft cannot hold (grouped, dilated, transposed, padded otherwise than by zeros, shared layers) are added to
    the base's weights and listed in the notes.

    Args:
        model: of :func:`corank.quantize` or :func:`corank.load`.
        folder: made if need be.
        example: a batch to compare peft with PyTorch on; None writes without comparing.
        tolerance: the largest difference that passes, over the largest output; None for 1e-4.

    Raises:
        ConfigError: peft is not installed.
        ModelError: for a model without an adapter that peft holds, or outputs that differ; nothing is written then.
        OutputError: when the folder cannot be written.
    """
    need_peft()
    run, layers, target = run_of(model), peft_layers(model), Path(folder)
    if not layers.held:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(layers.merged.items())[:3])
        raise ModelError(
            "the model has no adapter that peft can hold; quantize with a budget for adapters, e.g. budget=0.25"
            + (f" ({why})" if why else "")
        )
    for path in (target, (target / BASE).parent):
        _make_folder(path)
    base = peft_base(model)
    with staged(*(target / name for name in (ADAPTER, CONFIG, BASE))) as scratch:
        _write_base(base, scratch[2], run)
        safetensors.torch.save_file(_adapters(model, layers.held), scratch[0], metadata={"format": "pt"})
        scratch[1].write_text(json.dumps(_config(layers.held, base_name(model)), indent=2, sort_keys=True) + "\n")
        found = None if example is None else _compared(model, base, scratch[0].parent, example, tolerance)
        sizes = [path.stat().st_size for path in scratch]
    merged = tuple(f"{name} is merged into the base: {reason}" for name, reason in layers.merged.items())
    return ExportResult(
        target="peft",
        path=target,
        files=tuple(target / name for name in (ADAPTER, CONFIG, BASE)),
        size_bytes=sum(sizes),
        artifact_bytes=inspect(model)["stored_bytes"],
        float_bytes=sizes[2],
        max_difference=found.max_difference if found else None,
        relative_difference=found.relative_difference if found else None,
        latency_ms=found.latency_ms if found else None,
        notes=(*merged, *((_ROUNDED,) if rounds_inputs(model) else ())),
    )


@recording()
def load_peft_base(folder: str | Path, model: nn.Module | Callable[[], nn.Module]) -> nn.Module:
    """The base that :func:`export_peft` wrote into ``folder``: a float32 module on the CPU, in evaluation mode.

    Args:
        folder: that holds ``base/model.safetensors``.
        model: the float network's code, as a module (it is copied; its weights do not matter) or a function without
            arguments that makes one.

    Raises:
        ArtifactError: for a file that is unsound or does not fit the model. ConfigError: when ``model`` is neither.
    """
    path = Path(folder) / BASE
    given = model if isinstance(model, nn.Module) else model() if callable(model) else None
    if not isinstance(given, nn.Module):
        raise ConfigError(f"load_peft_base(folder, model): a torch.nn.Module or a function that makes one, not {model}")
    built = (copy.deepcopy(given) if given is model else given).cpu().float().eval()
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            about = json.loads((file.metadata() or {})[_METADATA])
            has_bias = {name.removesuffix(".bias") for name in file.keys() if name.endswith(".bias")}  # noqa: SIM118
        if not isinstance(about, dict):
            raise TypeError("what it says of itself is no mapping")
        apply_structure(built, about.get("structure", ()))
        modules = dict(built.named_modules(remove_duplicate=False))
        for name in about["folded"]:
            remove_norm(built, modules[name])
        for name in about["layers"]:
            kind = coded_class(modules[name], seen_alike=True)
            layer = kind(modules[name], Uniform(8)).keep_bias(name in has_bias)
            replace_module(built, modules[name], layer.to_float())
        safetensors.torch.load_model(built, path)
        built.__dict__["name_or_path"] = str(about["name"])
    except (SafetensorError, OSError, RuntimeError, KeyError, TypeError, ValueError, CorankError) as error:
        raise ArtifactError(f"{path} is no base that fits this {type(built).__name__}: {error}") from error
    return built


def need_peft() -> None:
    """Raises ConfigError where peft is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise ConfigError("this needs the library peft: pip install 'corank[peft]'")


def _adapters(model: nn.Module, held: Mapping[str, int]) -> dict[str, Tensor]:
    """The checkpoint's tensors; a row of ``lora_A`` and a column of ``lora_B`` for each direction."""
    tensors = {}
    for name, rank in held.items():
        layer = module_named(model, name)
        assert isinstance(layer, CodedLayer)
        adapter = layer.code().adapter
        assert adapter is not None
        left, right = _balanced(adapter.left.decode().cpu(), adapter.right.decode().cpu())
        first, second = shapes(layer.geometry, rank)
        tensors[f"{PREFIX}{name}.lora_A.weight"] = right.reshape(first).contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = left.t().reshape(second).contiguous()
    return tensors


def _balanced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Both factors ``(r, ...)`` at about the same size, so that one learning rate suits both.

    Directions are scaled by powers of two: the product stays as it is, bit for bit.
    """
    ratio = right.norm(dim=1, keepdim=True).clamp(min=1e-30) / left.norm(dim=1, keepdim=True).clamp(min=1e-30)
    scale = (ratio.log2() / 2).round().clamp(-16, 16).exp2()
    return left * scale, right / scale


def shapes(geometry: Geometry, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of ``lora_A`` and ``lora_B`` of a layer without groups."""
    outputs, *rest = geometry.shape
    return (rank, *rest), (outputs, rank, *(1 for _ in geometry.kernel))


def _config(held: Mapping[str, int], name: str) -> dict[str, Any]:
    # A pattern without `^` would also match longer names that end in it; `r` and `lora_alpha` are of no other layer.
    ranks = {f"^{re.escape(layer)}": rank for layer, rank in held.items()}
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": name,
        "r": max(held.values()),
        "lora_alpha": max(held.values()),
        "rank_pattern": ranks,
        "alpha_pattern": ranks,
        "target_modules": "|".join(re.escape(layer) for layer in held),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _write_base(base: nn.Module, path: Path, run: ModelRecord) -> None:
    about: dict[str, Any] = {
        "name": base.__dict__["name_or_path"], "folded": list(run.folded), "layers": list(run.layers),
    }  # fmt: skip
    if run.structure:
        about["structure"] = [dict(entry) for entry in run.structure]
    safetensors.torch.save_model(base, str(path), metadata={_METADATA: json.dumps(about), "format": "pt"})


def _compared(model: nn.Module, base: nn.Module, folder: Path, example: Any, tolerance: float | None) -> Checked:
    from peft import PeftModel

    expected = expected_of(to_float(copy.deepcopy(model).cpu().float()), example, tolerance)
    adapted = PeftModel.from_pretrained(base, str(folder)).eval()

    def run(inputs: Arrays) -> Arrays:
        given = {name: torch.from_numpy(array) for name, array in inputs.items()}
        return {name: tensor.numpy() for name, tensor in outputs_of(adapted, given).items()}

    return check(expected, run, "peft")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write into {path}: {error.strerror or error}") from error
