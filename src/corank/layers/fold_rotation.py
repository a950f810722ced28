"""Rotations folded into a decoder of the Llama family: at run time nothing is left of them.

The residual stream is rotated by ``Q`` (R1 of QuaRot, arXiv 2404.00456, and SpinQuant, arXiv 2405.16406): a norm that
divides by the root of the mean square alone gives the same of a rotated vector, rotated. So its weight goes into the
layers that read it, those are multiplied by ``Q`` from one side and those that write the stream from the other. Values
are rotated head by head (R2), and the layer after them back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from corank.errors import ModelError
from corank.layers.hadamard import Rotation, factors_of
from corank.layers.rotated import rotate_columns, rotate_rows
from corank.matrix import Geometry

__all__ = ["fold_rotation", "head_of", "untie"]

_NAMES = {
    "embedding": "model.embed_tokens",
    "norm": "model.norm",
    "head": "lm_head",
}
_BLOCK = re.compile(r"model\.layers\.\d+$")
_READERS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}
_WRITERS = ("self_attn.o_proj", "mlp.down_proj")


@dataclass(frozen=True)
class _Decoder:
    """The parts of a network of that family."""

    embedding: nn.Module
    norm: nn.Module
    head: nn.Module
    blocks: tuple[Mapping[str, nn.Module], ...]

    def readers(self) -> Iterator[tuple[nn.Module, tuple[nn.Module, ...]]]:
        """Norms, each with the layers that read it."""
        for block in self.blocks:
            for norm, names in _READERS.items():
                yield block[norm], tuple(block[name] for name in names)
        yield self.norm, (self.head,)


def fold_rotation(model: nn.Module, seed: int) -> None:
    """Rotates a network in place; its outputs stay, but for rounding.

    Args:
        model: named as Llama, Mistral, Qwen2 and Qwen3 of transformers are; its head and embedding have weights of
            their own, see :func:`untie`.
        seed: of the signs.

    Raises:
        ModelError: for another network, or a width that no rotation mixes.
    """
    decoder = _decoder(model)
    table = decoder.embedding.get_parameter("weight")
    if not factors_of(table.shape[1]):
        raise ModelError(f"a stream of {table.shape[1]} numbers is mixed by no rotation; rotate='layers' may be")
    stream = Rotation(table.shape[1], seed, table)
    for norm, layers in decoder.readers():
        gain = norm.get_parameter("weight").detach().double()
        for layer in layers:
            _scale_columns(layer, gain)
            rotate_columns(layer, stream)
        with torch.no_grad():
            norm.get_parameter("weight").fill_(1.0)
    rotate_columns(decoder.embedding, stream)
    for block in decoder.blocks:
        for name in _WRITERS:
            rotate_rows(block[name], stream)
        _rotate_heads(block, seed)


def head_of(model: nn.Module) -> tuple[str, bool]:
    """The name of a network's head, and whether its weight is that of the embedding.

    Raises:
        ModelError: for a network of another family.
    """
    decoder = _decoder(model)
    return _NAMES["head"], decoder.head._parameters["weight"] is decoder.embedding._parameters["weight"]


def untie(model: nn.Module, head: nn.Module) -> None:
    """Gives a head a weight of its own, equal to the one that it shared, in place; the configuration says so, too."""
    shared = head.get_parameter("weight")
    head._parameters["weight"] = nn.Parameter(shared.detach().clone(), shared.requires_grad)
    config = model.__dict__.get("config")
    if config is not None and "tie_word_embeddings" in vars(config):
        config.tie_word_embeddings = False


def _rotate_heads(block: Mapping[str, nn.Module], seed: int) -> None:
    """Values and what reads them, where the attention says how wide its heads are."""
    width = vars(block["self_attn"]).get("head_dim")
    values, after = block["self_attn.v_proj"], block["self_attn.o_proj"]
    rows, columns = Geometry.of(values).matrix_shape[1], Geometry.of(after).matrix_shape[2]
    if type(width) is int and width > 0 and rows % width == columns % width == 0 and factors_of(width):
        of_head = Rotation(width, seed, values.get_parameter("weight"))
        rotate_rows(values, of_head)
        rotate_columns(after, of_head)


def _scale_columns(layer: nn.Module, gain: torch.Tensor) -> None:
    weight = layer.get_parameter("weight")
    with torch.no_grad():
        weight.copy_(weight.double() * gain)


def _decoder(model: nn.Module) -> _Decoder:
    modules = dict(model.named_modules())
    found = {part: modules.get(name) for part, name in _NAMES.items()}
    blocks = [name for name in modules if _BLOCK.fullmatch(name)]
    wanted = [*_READERS, "self_attn", *(name for names in (*_READERS.values(), _WRITERS) for name in names)]
    missing = [_NAMES[part] for part, module in found.items() if module is None]
    missing += [f"{block}.{name}" for block in blocks for name in wanted if f"{block}.{name}" not in modules]
    if missing or not blocks:
        raise ModelError(
            f"rotate='fold' knows decoders named as Llama, Mistral and Qwen2 are; this {type(model).__name__} has no "
            f"{missing[0] if missing else 'model.layers'}; rotate='layers' takes any network"
        )
    parts = cast(dict[str, nn.Module], found)
    linear = [modules[f"{block}.{name}"] for block in blocks for name in wanted if name.endswith("_proj")]
    if not all(type(layer) is nn.Linear for layer in (*linear, parts["head"])):
        raise ModelError("rotate='fold' takes plain Linear layers; rotate='layers' takes those that there are")
    if type(parts["embedding"]) is not nn.Embedding:
        raise ModelError("rotate='fold' takes a plain Embedding; rotate='layers' takes any network")
    return _Decoder(**parts, blocks=tuple({name: modules[f"{block}.{name}"] for name in wanted} for block in blocks))
