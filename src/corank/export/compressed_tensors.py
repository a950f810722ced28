"""compressed-tensors ``pack-quantized``: the folder that vLLM serves, whole numbers of 4 and 8 bits packed in int32."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from corank.autograd import recording
from corank.errors import ConfigError, ModelError, OutputError
from corank.export.check import Arrays, check, expected_of
from corank.export.compressed_layers import PackedLayer, layers_of
from corank.export.example import outputs_of
from corank.export.result import ExportResult
from corank.export.rotations import refuse_rotated
from corank.export.to_torch import to_float
from corank.files import staged
from corank.models.network_folder import CONFIG, WEIGHTS_OF_TRANSFORMERS, auto_class, network_files
from corank.storage.model_record import run_of

__all__ = ["export_compressed_tensors"]

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_TOLERANCE = 2e-2  # of the largest output: what is not coded is kept in half precision
_SCALES = "scales are fp16 and were rounded to bfloat16; dtype=torch.float16 keeps them as they are"
_SERVE = "vllm serve FOLDER --dtype {} serves it, --tensor-parallel-size N over N devices"


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
    refuse_rotated(model, "compressed-tensors")
    target, plain = Path(folder), to_float(model)
    layers, reasons = layers_of(model)
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


def _state(plain: nn.Module, layers: Mapping[str, PackedLayer], dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors of the file."""
    state: dict[str, Tensor] = {}
    tied = plain.config.tie_word_embeddings  # pyright: ignore
    for name, value in plain.state_dict().items():
        owner, _, kind = name.rpartition(".")
        if tied and name == "lm_head.weight":
            continue
        if kind == "weight" and owner in layers:
            state.update({f"{owner}.{key}": one for key, one in layers[owner].tensors(dtype).items()})
        else:
            state[name] = value.detach().cpu().to(dtype if value.is_floating_point() else value.dtype).contiguous()
    return state


def _config(plain: nn.Module, layers: Mapping[str, PackedLayer]) -> dict[str, Any]:
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
    config: Any = QuantizationConfig.model_validate(told)
    held = safetensors.torch.load_file(folder / WEIGHTS_OF_TRANSFORMERS)
    state = {name: value for name, value in held.items() if ".weight_" not in name}
    for name in {key.rpartition(".")[0] for key in held if key.endswith(".weight_packed")}:
        scheme = next(one for one in config.config_groups.values() if {name, "Linear"} & set(one.targets))
        own = {key.rpartition(".")[2]: value for key, value in held.items() if key.rpartition(".")[0] == name}
        own["weight_scale"] = own["weight_scale"].float()  # its own rounding of products is not what is looked at
        decoder: Any = BaseCompressor.get_value_from_registry(scheme.format or config.format)
        state[f"{name}.weight"] = decoder.decompress(own, scheme)["weight"]
    plain.float().load_state_dict(state, strict=False)

    def run(inputs: Arrays) -> Arrays:
        given = {name: torch.from_numpy(array) for name, array in inputs.items()}
        return {name: tensor.numpy() for name, tensor in outputs_of(plain, given).items()}

    return run


def _notes(layers: Mapping[str, PackedLayer], reasons: Mapping[str, str], dtype: torch.dtype) -> tuple[str, ...]:
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
