"""compressed-tensors ``pack-quantized``: the folder that vLLM serves, whole numbers of 4 and 8 bits packed in int32."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from corank.autograd import recording
from corank.errors import ConfigError, ModelError, OutputError
from corank.export.check import Arrays, check, expected_of
from corank.export.example import outputs_of
from corank.export.result import ExportResult
from corank.export.stored import Kind, StoredWeight, stored_weight
from corank.export.to_torch import to_float
from corank.files import staged
from corank.layers import CodedLinear
from corank.models.network_folder import CONFIG, WEIGHTS_OF_TRANSFORMERS, auto_class, network_files
from corank.storage.model_record import run_of

__all__ = ["Scheme", "export_compressed_tensors", "pack_rows"]

_KINDS: tuple[Kind, ...] = ((4, True), (4, False), (8, True), (8, False))
_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))  # vLLM computes these as one layer
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_TOLERANCE = 2e-2  # of the largest output: what is not coded is kept in half precision
_SCALES = "scales are fp16 and were rounded to bfloat16; dtype=torch.float16 keeps them as they are"
_SERVE = "vllm serve FOLDER --dtype {} serves it, --tensor-parallel-size N over N devices"


@dataclass(frozen=True)
class Scheme:
    """How a layer's numbers are kept.

    Args:
        bits: 4 or 8.
        group_size: columns that share a scale; -1 for a scale a row.
        symmetric: numbers are signed, and there are no zero points.
    """

    bits: int
    group_size: int
    symmetric: bool

    def to_json(self, targets: Sequence[str]) -> dict[str, Any]:
        """A group of ``quantization_config``, for the layers of these names."""
        grouped = self.group_size > 0
        weights = {
            "num_bits": self.bits,
            "type": "int",
            "symmetric": self.symmetric,
            "strategy": "group" if grouped else "channel",
            "group_size": self.group_size if grouped else None,
            "dynamic": False,
            "actorder": None,
            "observer": "minmax",
        }
        return {"targets": list(targets), "weights": weights, "input_activations": None, "output_activations": None}


@dataclass(frozen=True)
class _Layer:
    """Numbers ``(R, C)`` and zero points ``(R, G)``, both counted from the middle of the range, and scales."""

    scheme: Scheme
    numbers: Tensor
    zero: Tensor
    scale: Tensor


@recording()
def export_compressed_tensors(
    model: nn.Module,
    folder: str | Path,
    example: Any = None,
    *,
    tokenizer: Any = None,
    dtype: torch.dtype = torch.float16,
) -> ExportResult:
    """Writes a quantized language model as the folder that vLLM and transformers load by compressed-tensors.

    Linear layers with uniform codes, of a scale for each row or group, keep their codes: at 4 bits, or 8. Embeddings
    and heads, layers with adapters and those of other levels are written as floats, and named in the notes. Where
    queries, keys and values (or gate and up) would be kept in different ways, all are floats: vLLM computes them at
    once. The folder is loaded again by compressed-tensors and run beside the model before it is put in place.

    Args:
        model: of transformers, from :func:`corank.quantize` or :func:`corank.load`.
        folder: made if need be.
        example: token ids ``(N, T)`` to compare on; None: a few.
        tokenizer: of transformers, its folder or its name; None takes the one of the model's own folder; False none.
        dtype: of scales and of all that is not coded: float16 (scales as they are), bfloat16 or float32.

    Raises:
        ConfigError: another dtype, the package compressed-tensors is missing or too old, or a tokenizer that cannot be
            read.
        ModelError: for a model that corank did not quantize, one that is not of transformers, or one without a layer
            that the format holds; where what was read back differs.
        OutputError: when the folder cannot be written.
    """
    run_of(model)
    _check(model, dtype)
    target, plain = Path(folder), to_float(model)
    layers, reasons = _layers(model)
    if not layers:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:3])
        raise ModelError(
            f"no layer fits compressed-tensors ({why}); quantize with codec=corank.Uniform(bits=4, group=32, "
            "symmetric=True) and budget=0"
        )
    state = _state(plain, layers, dtype)
    told = {"quantization_config": _config(plain, layers), "dtype": str(dtype).removeprefix("torch.")}
    texts = network_files(plain, tokenizer, told)
    given = torch.arange(8)[None] % plain.config.vocab_size if example is None else example  # pyright: ignore
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write into {target}: {error.strerror or error}") from error
    names = (WEIGHTS_OF_TRANSFORMERS, *texts)
    with staged(*(target / name for name in names)) as scratch:
        safetensors.torch.save_file(state, scratch[0], metadata={"format": "pt"})
        for path, text in zip(scratch[1:], texts.values(), strict=True):
            path.write_text(text, encoding="utf-8")
        expected = expected_of(plain, given, _TOLERANCE)
        found = check(expected, _loaded(scratch[0].parent, plain), "compressed-tensors")
        size = sum(path.stat().st_size for path in scratch)
    return ExportResult(
        target="compressed-tensors",
        path=target,
        files=tuple(target / name for name in names),
        size_bytes=size,
        float_bytes=sum(2 * value.numel() for value in plain.parameters()),
        max_difference=found.max_difference,
        relative_difference=found.relative_difference,
        notes=_notes(layers, reasons, dtype),
    )


def pack_rows(numbers: Tensor, bits: int) -> Tensor:
    """Whole numbers ``(R, C)``, counted from the middle of their range, as int32 ``(R, ceil(C bits / 32))``.

    The first of a row lies in the lowest bits.
    """
    each = 32 // bits
    wide = torch.nn.functional.pad(numbers.long() + (1 << (bits - 1)), (0, -numbers.shape[1] % each))
    places = torch.arange(each, dtype=torch.int64) * bits
    words = (wide.reshape(len(wide), -1, each) << places).sum(-1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)


def _check(model: nn.Module, dtype: torch.dtype) -> None:
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype={dtype}: {', '.join(map(str, _DTYPES))}; scales are kept as they are in float16")
    if importlib.util.find_spec("compressed_tensors") is None:
        raise ConfigError("this export needs compressed-tensors: pip install 'corank[compressed-tensors]'")
    from compressed_tensors.config import CompressionFormat

    if "pack_quantized" not in CompressionFormat.__members__:
        raise ConfigError(
            "the installed compressed-tensors knows no 'pack-quantized': pip install --upgrade compressed-tensors"
        )
    if auto_class(model) != "AutoModelForCausalLM":
        raise ModelError(
            f"compressed-tensors is written for causal language models of transformers, not for a "
            f"{type(model).__name__}; corank.export.export_onnx takes any model"
        )


def _layers(model: nn.Module) -> tuple[dict[str, _Layer], dict[str, str]]:
    """The layers that the format holds, by name, and why it does not hold the others."""
    found: dict[str, StoredWeight] = {}
    reasons: dict[str, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, CodedLinear):
            kept = "vLLM keeps heads in float" if name.rpartition(".")[2] == "lm_head" else _kept(module)
            if isinstance(kept, str):
                reasons[name] = kept
            else:
                found[name] = kept
    signed = {name: _signed(stored) for name, stored in found.items()}
    # One kind for all of a width and group, so that layers that vLLM joins agree.
    unsigned = {_form(found[name]) for name, numbers in signed.items() if numbers is None}
    layers = {name: _layer(stored, _form(stored) not in unsigned) for name, stored in found.items()}
    for name in list(layers):
        parent, _, own = name.rpartition(".")
        joined = next((names for names in _TOGETHER if own in names), (own,))
        schemes = {layers[full].scheme if (full := f"{parent}.{one}") in layers else None for one in joined}
        if len(schemes) > 1:
            reasons[name] = f"{' and '.join(joined)} are one layer in vLLM, and are kept in different ways here"
    return {name: layer for name, layer in layers.items() if name not in reasons}, reasons


def _kept(layer: CodedLinear) -> StoredWeight | str:
    code = layer.code()
    if code.adapter is not None:
        return "its adapter is added to its weight"
    try:
        stored = stored_weight(code.weight, _KINDS)
    except ModelError:
        return "its codes are more than eight bits wide"
    if stored.table is not None:
        return "its levels are not equally spaced"
    if not stored.is_affine:
        return "its zero points lie between two codes"
    if not torch.equal(code.weight.decode(), layer.weight.detach().float()):
        return "its weight is more than its codes"
    rows, columns = stored.codes.shape
    if stored.scale.shape[1] > 1 and columns % stored.group_size:
        return f"its {columns} columns are no multiple of its groups of {stored.group_size}"
    return replace(stored, scale=stored.scale.expand(rows, -1))


def _form(stored: StoredWeight) -> tuple[int, int]:
    return stored.bits, stored.group_size if stored.scale.shape[1] > 1 else -1


def _signed(stored: StoredWeight) -> Tensor | None:
    """Numbers less their zero points, where they fit the width."""
    numbers = stored.codes.long()
    if stored.zero is not None:
        zero = stored.zero.expand(len(numbers), -1).long()
        numbers = numbers - zero.repeat_interleave(-(-numbers.shape[1] // zero.shape[1]), dim=1)
    half = 1 << (stored.bits - 1)
    return numbers if -half <= int(numbers.min()) and int(numbers.max()) < half else None


def _layer(stored: StoredWeight, symmetric: bool) -> _Layer:
    bits, group_size = _form(stored)
    scheme = Scheme(bits, group_size, symmetric)
    numbers = _signed(stored)
    none = torch.zeros(1, 1, dtype=torch.float32)
    if symmetric:
        assert numbers is not None
        return _Layer(scheme, numbers, none, stored.scale)
    middle = 0 if stored.signed else 1 << (bits - 1)
    zero = (none if stored.zero is None else stored.zero).expand(stored.scale.shape).long()
    return _Layer(scheme, stored.codes.long() - middle, zero - middle, stored.scale)


def _state(plain: nn.Module, layers: Mapping[str, _Layer], dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors of the file."""
    state: dict[str, Tensor] = {}
    tied = plain.config.tie_word_embeddings  # pyright: ignore
    for name, value in plain.state_dict().items():
        owner, _, kind = name.rpartition(".")
        if tied and name == "lm_head.weight":
            continue
        if kind == "weight" and owner in layers:
            state.update({f"{owner}.{key}": one for key, one in _packed(layers[owner], dtype).items()})
        else:
            state[name] = value.detach().cpu().to(dtype if value.is_floating_point() else value.dtype).contiguous()
    return state


def _packed(layer: _Layer, dtype: torch.dtype) -> dict[str, Tensor]:
    bits = layer.scheme.bits
    found = {
        "weight_packed": pack_rows(layer.numbers, bits),
        "weight_scale": layer.scale.to(dtype).contiguous(),
        "weight_shape": torch.tensor(layer.numbers.shape, dtype=torch.int64),
    }
    if not layer.scheme.symmetric:
        found["weight_zero_point"] = pack_rows(layer.zero.T, bits).T.contiguous()
    return found


def _config(plain: nn.Module, layers: Mapping[str, _Layer]) -> dict[str, Any]:
    """``quantization_config``: a group for each scheme; linear layers without one are named as left alone."""
    schemes = list(dict.fromkeys(layer.scheme for layer in layers.values()))
    named = {scheme: [name for name, layer in layers.items() if layer.scheme == scheme] for scheme in schemes}
    groups = {
        f"group_{place}": scheme.to_json(["Linear"] if len(schemes) == 1 else named[scheme])
        for place, scheme in enumerate(schemes)
    }
    linear = [name for name, module in plain.named_modules() if isinstance(module, nn.Linear)]
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": [name for name in linear if name not in layers],
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


def _loaded(folder: Path, plain: nn.Module) -> Callable[[Arrays], Arrays]:
    """A function that runs the network with the weights of the folder, as the package compressed-tensors decodes them.

    Changes ``plain``.
    """
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig

    told = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["quantization_config"]
    config = QuantizationConfig.model_validate(told)
    held = safetensors.torch.load_file(folder / WEIGHTS_OF_TRANSFORMERS)
    state = {name: value for name, value in held.items() if ".weight_" not in name}
    for name in {key.rpartition(".")[0] for key in held if key.endswith(".weight_packed")}:
        scheme = next(one for one in config.config_groups.values() if {name, "Linear"} & set(one.targets))
        own = {key.rpartition(".")[2]: value for key, value in held.items() if key.rpartition(".")[0] == name}
        own["weight_scale"] = own["weight_scale"].float()  # its own rounding of products is not what is looked at
        decoder = BaseCompressor.get_value_from_registry(scheme.format or config.format)
        state[f"{name}.weight"] = decoder.decompress(own, scheme)["weight"]
    plain.float().load_state_dict(state, strict=False)

    def run(inputs: Arrays) -> Arrays:
        given = {name: torch.from_numpy(array) for name, array in inputs.items()}
        return {name: tensor.numpy() for name, tensor in outputs_of(plain, given).items()}

    return run


def _notes(layers: Mapping[str, _Layer], reasons: Mapping[str, str], dtype: torch.dtype) -> tuple[str, ...]:
    counts = Counter(layer.scheme for layer in layers.values())
    kinds = ", ".join(
        f"{count} of {scheme.bits} bits{', ' if scheme.symmetric else ' with zero points, '}"
        f"{'a scale a row' if scheme.group_size < 0 else f'groups of {scheme.group_size}'}"
        for scheme, count in counts.most_common()
    )
    floats = tuple(_named(names, reason) for reason, names in _by_reason(reasons))
    rounded = (_SCALES,) if dtype is torch.bfloat16 else ()
    name = {torch.float16: "half", torch.bfloat16: "bfloat16"}.get(dtype, "float32")
    return (f"linear layers: {kinds}", *floats, *rounded, _SERVE.format(name))


def _by_reason(reasons: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    for reason in dict.fromkeys(reasons.values()):
        yield reason, [name for name, own in reasons.items() if own == reason]


def _named(names: Sequence[str], reason: str) -> str:
    rest = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{rest} {'are' if rest else 'is'} float: {reason}"
