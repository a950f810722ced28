"""A language model whose decoder layers are read one at a time: they are on the meta device, the rest is there."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from corank.data.preprocessing import Preprocessing
from corank.data.tokens import Tokenization
from corank.errors import ConfigError, ModelError
from corank.models.from_hf import causal_config, tokenization_of
from corank.models.resolve import ResolvedModel
from corank.models.sharded_weights import ShardedWeights, fill

__all__ = ["StreamedNetwork", "open_streamed", "streamed_source"]


@dataclass(frozen=True)
class StreamedNetwork:
    """A network and where its weights are.

    Attributes:
        model: in evaluation mode; all but its decoder layers has its values, in float32.
        blocks: the name of the list of decoder layers.
        weights: of all of it.
        tokenization: how it reads text and token files.
    """

    model: nn.Module
    blocks: str
    weights: ShardedWeights
    tokenization: Tokenization

    def names(self) -> list[str]:
        """Of the decoder layers, in the order they run."""
        return [f"{self.blocks}.{name}" for name, _ in self.model.get_submodule(self.blocks).named_children()]

    def read(self, name: str, block: nn.Module) -> nn.Module:
        """A copy of the decoder layer ``name``, which is on the meta device, with its values in float32."""
        read = copy.deepcopy(block)
        fill({f"{name}.{path}".removesuffix("."): module for path, module in read.named_modules()}, self.weights)
        return read

    def put(self, name: str, block: nn.Module) -> None:
        """Puts a module in the place of a decoder layer."""
        place, _, last = name.rpartition(".")
        self.model.get_submodule(place)._modules[last] = block


def streamed_source(reference: str) -> ResolvedModel:
    """What a command says of a model that it does not hold: how it reads text, and where it is.

    Raises:
        ModelError: for what is no folder of a causal language model.
    """
    place = _place(reference)
    tokenization = tokenization_of(causal_config(place).to_dict(), str(place))
    return ResolvedModel(nn.Module(), reference, str(place), None, Preprocessing(), False, tokenization)


def open_streamed(folder: str | Path) -> StreamedNetwork:
    """The causal language model of a folder of transformers', as little of it read as runs without decoder layers.

    Args:
        folder: with a ``config.json`` and ``.safetensors`` files, an index beside them where there are several.

    Raises:
        ModelError: for what is no such folder, weights that do not fit or are not whole, or a model without a list of
            decoder layers.
        ConfigError: where transformers or accelerate is not installed.
    """
    place = _place(folder)
    config = causal_config(place)
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(f"{place} is quantized already; give the float model that it was made from")
    weights = ShardedWeights(place)
    model = _skeleton(config)
    if not any(name in weights for name, _ in model.named_parameters()):
        weights.add_prefix(f"{model.base_model_prefix}.")  # GPT-2's own files hold the network without its head
    _check(model, weights, place)
    blocks = _blocks(model)
    apart = {id(module) for module in model.get_submodule(blocks).modules()}
    fill({name: module for name, module in model.named_modules() if id(module) not in apart}, weights)
    return StreamedNetwork(model, blocks, weights, tokenization_of(config.to_dict(), str(place)))


def _place(folder: str | Path) -> Path:
    place = Path(str(folder).removeprefix("hf:")).expanduser()
    if not (place / "config.json").is_file():
        raise ModelError(f"{place} has no config.json: give the folder of a language model of transformers")
    return place


def _skeleton(config: Any) -> nn.Module:
    """The network with parameters on the meta device, and buffers that are computed, not stored, in place."""
    try:
        from accelerate import init_empty_weights
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        raise ConfigError(
            "reading a model layer by layer needs transformers and accelerate: pip install 'corank[hf,distributed]'"
        ) from error
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    model.tie_weights()
    return model.float().eval()


def _check(model: nn.Module, weights: ShardedWeights, folder: Path) -> None:
    """Raises ModelError unless every parameter is in the files, in its shape; of tied ones under one name."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for name, parameter in model.named_parameters():
        stored = [one for one in names[id(parameter)] if one in weights]
        if not stored:
            raise ModelError(
                f"the files of {folder} lack {name!r}; copy the folder anew, or, where they name weights otherwise "
                "than the model does, load it whole: corank.quantize"
            )
        if weights.shape(stored[0]) != tuple(parameter.shape):
            raise ModelError(
                f"{stored[0]!r} is {weights.shape(stored[0])} in {folder}, and {tuple(parameter.shape)} by config.json"
            )


def _blocks(model: nn.Module) -> str:
    """The name of the list that holds the decoder layers: the largest list of modules of one class."""
    lists = {
        name: sum(parameter.numel() for parameter in module.parameters())
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and len({type(one) for one in module}) == 1
    }
    if not lists:
        raise ModelError(
            f"{type(model).__name__} has no list of decoder layers of one kind to read one by one; "
            "load it whole: corank.quantize"
        )
    return max(lists, key=lambda name: lists[name])
