"""GGUF, the file of llama.cpp: codes stay as they are, in the types of ggml that hold them."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from corank.autograd import recording
from corank.errors import ConfigError, ModelError
from corank.export.check import Arrays, check, expected_of
from corank.export.example import outputs_of
from corank.export.gguf_blocks import BLOCK_TYPES, KINDS, Blocks, blocks_of
from corank.export.gguf_llama import (
    ARCHITECTURE,
    check_llama,
    gguf_name,
    in_their_order,
    rotary_factors,
    settings,
    stated,
)
from corank.export.gguf_tokenizer import TokenizerFields, tokenizer_fields
from corank.export.result import ExportResult
from corank.export.rotations import refuse_rotated
from corank.export.stored import StoredWeight, stored_weight
from corank.export.to_torch import to_float
from corank.files import staged
from corank.layers import CodedLayer, names_of
from corank.models.own_tokenizer import own_tokenizer
from corank.storage.model_record import run_of

__all__ = ["GgufTypes", "export_gguf"]

_TOLERANCE = 2e-2  # of the largest output: least values of blocks and floats are rounded to fp16
_OWN = "llama.cpp rounds the inputs of coded layers to 8 bits, so its logits differ a little from these"
_IDS = "no tokenizer: the file takes token ids alone; give tokenizer=, or keep it in the model's folder"
_ENDLESS = "the model names no token that ends a text, and llama.cpp then takes one of its own: give it an eos_token"


@dataclass(frozen=True)
class GgufTypes:
    """Which of ggml's types may be used.

    Args:
        names: those for codes, in order; the first that holds a layer's codes is taken. By default the smallest.
        exact: nothing is rounded: offsets go to a type that holds them as whole numbers, and what has no type of its
            own stays float32. Otherwise a block's least value (``Q4_1``, ``Q5_1``) and floats are fp16.
    """

    names: tuple[str, ...] = tuple(BLOCK_TYPES)
    exact: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.names if name not in BLOCK_TYPES]
        if unknown:
            raise ConfigError(f"ggml's type {unknown[0]!r} cannot be written; {', '.join(BLOCK_TYPES)} can")


_ANY = GgufTypes()


@dataclass(frozen=True)
class _Entry:
    """One tensor of the file: its own name and llama.cpp's, its type and its bytes or numbers; why it is a float."""

    name: str
    gguf: str
    type: str
    data: NDArray[Any]
    reason: str | None = None


@recording()
def export_gguf(
    model: nn.Module,
    path: str | Path,
    example: Any = None,
    *,
    tokenizer: Any = None,
    types: GgufTypes = _ANY,
) -> ExportResult:
    """Writes a quantized Llama (or Mistral) as a ``.gguf`` that llama.cpp runs, after reading it back.

    Codes are not quantized anew: where a type of ggml holds them, with an fp16 scale for each block of 32 columns (256
    in the ternary types), they are written as they are; see :mod:`corank.export.gguf_blocks`. Layers with adapters,
    of levels at unequal distances, or with groups that are no multiple of a block are written as floats, and named in
    the notes. What was written is read again by the package gguf and run in PyTorch beside the model.

    Args:
        model: of :func:`corank.quantize` or :func:`corank.load`.
        path: of the file.
        example: token ids ``(N, T)`` to compare on; None: a few.
        tokenizer: of transformers, its folder or its name; None takes the one in the model's own folder, if there is
            one; False writes none, and the file takes token ids alone.
        types: which of ggml's types may be used.

    Raises:
        ConfigError: the package gguf is missing or too old, or a tokenizer that cannot be written or does not fit.
        ModelError: for a model that corank did not quantize, or that is no Llama; where what was read back differs.
        OutputError: when the path cannot be written.
    """
    run_of(model)
    need_gguf()
    refuse_rotated(model, "GGUF")
    config, target = check_llama(model), Path(path)
    plain = to_float(model)
    fields = _fields(tokenizer, model, config)
    entries = list(_entries(model, plain, config, types))
    given = torch.arange(8)[None] % config.vocab_size if example is None else example
    expected = expected_of(plain, given, _TOLERANCE)
    with staged(target) as (scratch,):
        _write(scratch, entries, config, fields, rotary_factors(plain, config))
        found = check(expected, _read_back(scratch, entries, plain, config), "the file read back")
        size = scratch.stat().st_size
    return ExportResult(
        target="gguf",
        path=target,
        files=(target,),
        size_bytes=size,
        float_bytes=sum(4 * value.numel() for value in plain.parameters()),
        max_difference=found.max_difference,
        relative_difference=found.relative_difference,
        notes=_notes(entries, fields),
    )


def need_gguf() -> None:
    """Raises ConfigError where the package gguf is missing, or too old for ternary types."""
    if importlib.util.find_spec("gguf") is None:
        raise ConfigError("export to GGUF needs the package gguf: pip install 'corank[gguf]'")
    import gguf

    missing = [name for name in BLOCK_TYPES if name not in gguf.GGMLQuantizationType.__members__]
    if missing:
        raise ConfigError(f"the installed package gguf does not know {missing[0]}: pip install --upgrade gguf")


def _fields(tokenizer: Any, model: nn.Module, config: Any) -> TokenizerFields | None:
    found = own_tokenizer(model, tokenizer)
    return None if found is None else tokenizer_fields(found, config.vocab_size)


def _entries(model: nn.Module, plain: nn.Module, config: Any, types: GgufTypes) -> Iterator[_Entry]:
    """Every tensor of the model, coded or not, each once."""
    coded: dict[str, CodedLayer] = {}
    names = names_of(model)
    for module in model.modules():
        if isinstance(module, CodedLayer):
            coded.update({name: module for name in names[id(module)]})
    tied = bool(config.tie_word_embeddings)
    for name, value in plain.state_dict().items():
        if tied and name == "lm_head.weight":
            continue  # llama.cpp reads the embedding where there is no head
        if not name.endswith((".weight", ".bias")):
            continue
        layer = coded.get(name.rpartition(".")[0])
        if layer is None and tied and name == "model.embed_tokens.weight":
            layer = coded.get("lm_head")
        weight = value.detach().cpu().float()
        kept = None if layer is None or weight.dim() != 2 else _kept(name, layer, weight, config, types)
        if isinstance(kept, Blocks):
            yield _Entry(name, gguf_name(name), kept.type, kept.data)
        else:
            yield _as_floats(name, in_their_order(name, weight, config), types.exact, kept)


def _kept(name: str, layer: CodedLayer, weight: Tensor, config: Any, types: GgufTypes) -> Blocks | str:
    """A layer's codes in ggml's blocks, or why they stay floats."""
    code = layer.code()
    if code.adapter is not None:
        return "its adapter is added to its weight"
    try:
        stored = stored_weight(code.weight, KINDS)
    except ModelError:
        return "its codes are more than eight bits wide"
    if stored.decode().shape != weight.shape or not torch.equal(code.weight.decode(), weight):
        return "its weight is more than its codes"
    return blocks_of(_ordered(name, stored, config), types.names, types.exact)


def _ordered(name: str, stored: StoredWeight, config: Any) -> StoredWeight:
    parts = {"codes": stored.codes, "scale": stored.scale}
    if stored.zero is not None:
        parts["zero"] = stored.zero
    ordered: dict[str, Any] = {key: in_their_order(name, value, config) for key, value in parts.items()}
    return replace(stored, **ordered)


def _as_floats(name: str, values: Tensor, exact: bool, reason: str | None) -> _Entry:
    """Matrices as fp16, or float32 where that loses something and nothing may be lost; vectors as float32."""
    half = values.half()
    small = values.dim() > 1 and bool(half.isfinite().all()) and (not exact or bool((half.float() == values).all()))
    kept = half if small else values
    return _Entry(name, gguf_name(name), "F16" if small else "F32", kept.contiguous().numpy(), reason)


def _write(
    path: Path, entries: Sequence[_Entry], config: Any, fields: TokenizerFields | None, factors: Tensor | None
) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    try:
        common = Counter(entry.type for entry in entries if entry.data.ndim == 2).most_common(1)[0][0]
        kinds = gguf.LlamaFileType
        writer.add_file_type(kinds.ALL_F32 if common == "F32" else kinds[f"MOSTLY_{common}"])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for key, value in stated(settings(config)):
            writer.add_float32(key, value) if isinstance(value, float) else writer.add_uint32(key, value)
        _write_tokenizer(writer, fields, config)
        if factors is not None:
            writer.add_tensor("rope_freqs.weight", factors.numpy())
        for entry in entries:
            coded = entry.type in BLOCK_TYPES
            writer.add_tensor(
                entry.gguf, entry.data, raw_dtype=gguf.GGMLQuantizationType[entry.type] if coded else None
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _write_tokenizer(writer: Any, fields: TokenizerFields | None, config: Any) -> None:
    if fields is None:
        writer.add_tokenizer_model("none")
        return
    writer.add_tokenizer_model(fields.model)
    if fields.pre is not None:
        writer.add_tokenizer_pre(fields.pre)
    writer.add_token_list(fields.tokens)
    writer.add_token_types(fields.types)
    writer.add_token_scores(fields.scores)
    writer.add_token_merges(fields.merges)
    ends = config.eos_token_id[0] if isinstance(config.eos_token_id, list) else config.eos_token_id
    stated_ids = {name: value for name, value in (("bos", config.bos_token_id), ("eos", ends)) if value is not None}
    places = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    for name, number in {**stated_ids, **fields.ids}.items():
        writer.add_uint32(f"tokenizer.ggml.{places[name]}_token_id", number)
    for name, holds in fields.flags.items():
        writer.add_bool(f"tokenizer.ggml.{name if name.endswith('prefix') else name + '_token'}", holds)
    if fields.chat_template is not None:
        writer.add_chat_template(fields.chat_template)


def _read_back(path: Path, entries: Sequence[_Entry], plain: nn.Module, config: Any) -> Any:
    """A function that runs the model with the weights of the file."""
    import gguf

    held = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    state: dict[str, Tensor] = {}
    for entry in entries:
        tensor = held[entry.gguf]
        values = gguf.dequantize(np.asarray(tensor.data), tensor.tensor_type)
        state[entry.name] = in_their_order(entry.name, torch.from_numpy(np.array(values)), config, back=True)
    plain.float().load_state_dict(state, strict=False)
    if config.tie_word_embeddings:
        plain.get_parameter("lm_head.weight").data.copy_(state["model.embed_tokens.weight"])

    def run(inputs: Arrays) -> Arrays:
        given = {name: torch.from_numpy(np.array(array)) for name, array in inputs.items()}
        return {name: tensor.numpy() for name, tensor in outputs_of(plain, given).items()}

    return run


def _notes(entries: Sequence[_Entry], fields: TokenizerFields | None) -> tuple[str, ...]:
    counts = Counter(entry.type for entry in entries if entry.data.ndim == 2)
    kinds = ", ".join(f"{count} of {kind}" for kind, count in counts.most_common())
    reasons: Mapping[str, list[_Entry]] = {}
    for entry in entries:
        if entry.reason is not None:
            reasons = {**reasons, entry.reason: [*reasons.get(entry.reason, []), entry]}
    floats = tuple(
        f"{group[0].name.removesuffix('.weight')}{f' and {len(group) - 1} more' if len(group) > 1 else ''} "
        f"{'are' if len(group) > 1 else 'is'} {group[0].type}: {reason}"
        for reason, group in reasons.items()
    )
    endless = fields is not None and "eos" not in fields.ids
    return (
        f"matrices: {kinds}",
        *floats,
        *((_IDS,) if fields is None else ()),
        *((_ENDLESS,) if endless else ()),
        _OWN,
    )
