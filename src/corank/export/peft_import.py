"""Adapters that the library peft has trained, read back into a quantized model."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from corank.adapters import CodedLowRank, LowRank, code_factors, decompose, full_rank
from corank.autograd import recording
from corank.errors import ConfigError, ModelError
from corank.export.peft import ADAPTER, CONFIG, PREFIX, base_name, need_peft, peft_base, peft_layers, refusal, shapes
from corank.layers import CodedLayer, names_of, replace_module
from corank.storage.model_record import ATTRIBUTE, run_of

__all__ = ["ImportedLayer", "PeftImport", "import_peft"]

_LARGEST_CONFIG = 1 << 24  # bytes
# What does not change the outputs of a trained adapter, or is read here.
_READ = frozenset(
    (
        "peft_type", "task_type", "base_model_name_or_path", "revision", "auto_mapping", "peft_version", "r",
        "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "exclude_modules", "layers_to_transform",
        "layers_pattern", "lora_dropout", "use_rslora", "init_lora_weights", "inference_mode", "fan_in_fan_out",
    )
)  # fmt: skip
# Other ways to initialise change the base's weights as well.
_INITIAL = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class ImportedLayer:
    """One layer whose adapter was read.

    Attributes:
        rank_before, rank: of its adapter.
        adapter_bits: of the factors now.
        relative_error: ``|given - coded|`` over ``|given|``, Frobenius norms of the adapter's product.
    """

    rank_before: int
    rank: int
    adapter_bits: int
    relative_error: float


@dataclass(frozen=True)
class PeftImport:
    """A quantized model with the adapters of a peft checkpoint.

    Attributes:
        model: a copy of the one given, ready for :func:`corank.save`. The output errors in its run are still those
            measured when it was quantized.
        layers: name to what became of the layer's adapter.
    """

    model: nn.Module
    layers: Mapping[str, ImportedLayer]


@recording()
def import_peft(model: nn.Module, source: str | Path | Any, *, adapter_bits: int | None = None) -> PeftImport:
    """Reads adapters fine-tuned with peft into a quantized model: codes stay, adapters are replaced.

    Factors are rounded to the plan's ``adapter_bits`` again, as they are or balanced by a singular value decomposition,
    whichever loses less. Ranks may differ from the plan's, and layers without an adapter may get one: the plan then
    changes, and so does the file's size. A rank above what the layer can use is brought down to that, which loses
    nothing.

    Args:
        model: the one that :func:`corank.export.export_peft` was given, or its artifact loaded; not changed.
        source: a folder that ``PeftModel.save_pretrained`` wrote, or the ``PeftModel`` itself.
        adapter_bits: width of the factors from now on, 2 to 8; None keeps the plan's.

    Raises:
        ConfigError: for another width, a source that is neither, or where peft is not installed.
        ModelError: when the checkpoint is unsound or belongs to another base, lacks adapters, or holds more than
            plain LoRA adapters of coded layers.
    """
    need_peft()
    if adapter_bits is not None and (type(adapter_bits) is not int or not 2 <= adapter_bits <= 8):
        raise ConfigError(f"adapter_bits={adapter_bits!r}: adapters are stored in 2 to 8 bits, or None for the plan's")
    run = run_of(model)
    read = (
        _from_folder(Path(source), base_name(model)) if isinstance(source, (str, Path)) else _from_model(model, source)
    )
    config, tensors = read
    given = _adapters(model, config, tensors)
    missing = [name for name in peft_layers(model).held if name not in given]
    if missing:
        raise ModelError(f"the adapters of {_few(missing)} are missing, and the base does not hold them")
    built = copy.deepcopy(model)
    plans, layers = dict(run.plan.layers), {}
    for name, adapter in given.items():
        layer = built.get_submodule(name)
        assert isinstance(layer, CodedLayer)
        bits = adapter_bits or plans[name].adapter_bits
        coded, error = _coded(adapter, bits)
        layers[name] = ImportedLayer(layer.rank, coded.rank, bits, error)
        plans[name] = replace(plans[name], rank=coded.rank, adapter_bits=bits)
        replace_module(built, layer, _with_adapter(layer, coded, bits))
    built.__dict__[ATTRIBUTE] = replace(run, plan=replace(run.plan, layers=plans))
    return PeftImport(built, layers)


def _from_folder(folder: Path, name: str) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    path = folder / CONFIG
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise ValueError("it is too long to be a configuration")
        config = json.loads(path.read_text())
        if not isinstance(config, dict):
            raise ValueError("it is not a JSON object")
        _check_config(config, name)
        path = folder / ADAPTER
        with safe_open(str(path), "pt") as file:
            return config, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except ModelError:
        raise
    except (OSError, ValueError, RuntimeError, RecursionError, SafetensorError) as error:
        raise ModelError(
            f"{path} cannot be read: {error}; give a folder that PeftModel.save_pretrained wrote, with {ADAPTER}"
        ) from error


def _from_model(model: nn.Module, source: Any) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    from peft import PeftModel, get_peft_model_state_dict
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not isinstance(source, PeftModel):
        raise ConfigError(f"import_peft(model, source): a folder or a peft.PeftModel, not {type(source).__name__}")
    active = source.active_adapters
    if len(active) != 1:
        raise ModelError(f"{len(active)} adapters are active ({', '.join(active)}); set_adapter(name) chooses one")
    if any(isinstance(module, BaseTunerLayer) and module.merged for module in source.modules()):
        raise ModelError("the adapters are merged into the weights; call unmerge_adapter() first")
    name = active[0]
    base = base_name(model)
    config = {**source.peft_config[name].to_dict(), "base_model_name_or_path": base}
    _check_config(config, base)
    _check_base(model, source.get_base_model())
    return config, get_peft_model_state_dict(source, adapter_name=name, save_embedding_layers=False)


def _check_base(model: nn.Module, trained: nn.Module) -> None:
    """Whether all but the adapters is as peft was given it, within the precision it was trained in."""
    found = {key.replace(".base_layer.", "."): value for key, value in trained.state_dict().items()}
    for key, expected in peft_base(model).state_dict().items():
        value = found.get(key)
        if value is None or value.shape != expected.shape:
            raise ModelError(f"the PeftModel's base has no {key!r} of shape {tuple(expected.shape)}: {_OTHER_BASE}")
        if expected.is_floating_point():
            close = 1e-6 if value.dtype in (torch.float32, torch.float64) else 1e-2
            distance = (value.detach().cpu().float() - expected).norm()
            if not bool(distance <= close * expected.norm().clamp(min=1e-30)):
                raise ModelError(f"{key!r} of the PeftModel's base has changed; {_OTHER_BASE}")


_OTHER_BASE = (
    "adapters can be read that were trained on corank.export.peft_base(model) or what load_peft_base gave, with "
    "everything but the adapters as it was"
)


def _check_config(config: Mapping[str, Any], name: str) -> None:
    """Whether it is plain LoRA: whatever else a checkpoint asks for would be lost without a word."""
    from peft import LoraConfig

    if config.get("peft_type") not in ("LORA", "PeftType.LORA"):
        raise ModelError(f"the checkpoint is of type {config.get('peft_type')!r}; corank's adapters are plain LORA")
    plain = LoraConfig().to_dict()
    further = [key for key, value in config.items() if key not in _READ and value and value != plain.get(key)]
    if further:
        raise ModelError(f"the checkpoint uses {_few(further)}, which a plain low-rank adapter has no place for")
    if config.get("init_lora_weights") not in _INITIAL:
        raise ModelError(
            f"init_lora_weights={config['init_lora_weights']!r} has changed the base's weights; train with "
            "is_trainable=True from what export_peft wrote, or with init_lora_weights=True"
        )
    if config.get("base_model_name_or_path") != name:
        raise ModelError(
            f"the checkpoint was trained on the base {config.get('base_model_name_or_path')!r}, and this model's is "
            f"{name!r}; {_OTHER_BASE}; of a PeftModel in memory, the base itself is compared"
        )


def _adapters(model: nn.Module, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, LowRank]:
    run, names = run_of(model), names_of(model)
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        side = key[-len(".lora_A.weight") :]
        name = key.removeprefix(PREFIX).removesuffix(side)
        if not key.startswith(PREFIX) or side not in (".lora_A.weight", ".lora_B.weight"):
            raise ModelError(f"the checkpoint holds {key!r}; only lora_A and lora_B of coded layers can be read")
        if name not in run.layers:
            raise ModelError(
                f"the checkpoint adapts {name!r}, which is not a coded layer; those are {_few(list(run.layers))}"
            )
        pairs.setdefault(name, {})[side] = tensor.detach().cpu().float()
    found = {}
    for name in run.layers:
        if name in pairs:
            layer = model.get_submodule(name)
            assert isinstance(layer, CodedLayer)
            reason = refusal(layer, names[id(layer)])
            if reason is None and full_rank(layer.geometry.matrix_shape) == 0:
                reason = "an adapter would take more than its weight"
            if reason is not None:
                raise ModelError(f"the adapter of layer {name!r} cannot be kept: {reason}")
            found[name] = _low_rank(name, layer, pairs[name], config)
    return found


def _low_rank(name: str, layer: CodedLayer, pair: Mapping[str, Tensor], config: Mapping[str, Any]) -> LowRank:
    """One adapter, its scale in the left factor, at most of the rank that the layer can use."""
    first, second = pair.get(".lora_A.weight"), pair.get(".lora_B.weight")
    if first is None or second is None or first.dim() == 0 or first.shape[0] == 0:
        raise ModelError(f"the adapter of layer {name!r} lacks a factor")
    rank = first.shape[0]
    wanted = shapes(layer.geometry, rank)
    if (tuple(first.shape), tuple(second.shape)) != wanted:
        raise ModelError(
            f"the adapter of layer {name!r} has factors of {tuple(first.shape)} and {tuple(second.shape)}, not {wanted}"
        )
    scale = _alpha(name, config) / (math.sqrt(rank) if config.get("use_rslora") else rank)
    left, right = scale * second.reshape(second.shape[0], rank), first.reshape(rank, -1)
    if not bool(torch.isfinite(left).all() and torch.isfinite(right).all()):
        raise ModelError(f"the adapter of layer {name!r} is not finite")
    adapter = LowRank(left[None], right[None], torch.zeros(rank, dtype=torch.float32))
    most = full_rank(layer.geometry.matrix_shape)
    return adapter if rank <= most else decompose(adapter.product()[None], "svd", {}).truncate(most)


def _alpha(name: str, config: Mapping[str, Any]) -> float:
    from peft.utils.other import get_pattern_key

    patterns = config.get("alpha_pattern") or {}
    try:
        alpha: Any = patterns.get(get_pattern_key(list(patterns), name), config.get("lora_alpha"))
        if isinstance(alpha, bool) or not math.isfinite(alpha):
            raise ValueError(f"{alpha!r} is no number")
        return float(alpha)
    except (AttributeError, TypeError, ValueError, OverflowError, re.error) as error:
        raise ModelError(f"the checkpoint's lora_alpha of layer {name!r} is unsound: {error}") from error


def _coded(adapter: LowRank, bits: int) -> tuple[CodedLowRank, float]:
    """The adapter coded, as it is or balanced, whichever is closer, and the relative error of its product."""
    product = adapter.product()
    size = product.norm().clamp(min=1e-30)
    balanced = decompose(product[None], "svd", {}).truncate(adapter.rank)
    candidates = [code_factors(one, bits) for one in (adapter, balanced)]
    errors = [float((one.product() - product).norm() / size) for one in candidates]
    return (candidates[0], errors[0]) if errors[0] <= errors[1] else (candidates[1], errors[1])


def _with_adapter(layer: CodedLayer, adapter: CodedLowRank, bits: int) -> CodedLayer:
    """The same layer with another adapter."""
    made = type(layer)(layer.to_float(), layer.codec, adapter.rank, bits, layer.inputs).keep_shifts(layer.shifts)
    made.fill(replace(layer.code(), adapter=adapter, adapter_bits=bits), layer.bias)
    return made


def _few(names: list[str]) -> str:
    return ", ".join(map(repr, names[:4])) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
